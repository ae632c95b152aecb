"""`python -m parakeet_stt`: the command `parakeet`, in a checkout too."""

from parakeet_stt.cli.app import main

if __name__ == "__main__":
    main()
