from midstream.cli import main

main()
