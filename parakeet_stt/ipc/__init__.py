"""What crosses between the processes of one service: messages and descriptors, and audio in shared memory."""
