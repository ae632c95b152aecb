"""What a GPU needs of its own: the encoder's layers in fewer kernels."""
