"""``python -m chatserver.terminal`` is ``asyncchat``."""

from chatserver.terminal.main import main

if __name__ == "__main__":
    main()
