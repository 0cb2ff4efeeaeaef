"""`python -m jaxsr` is the console command `jaxsr`."""

from jaxsr import cli

if __name__ == '__main__':
  cli.main()
