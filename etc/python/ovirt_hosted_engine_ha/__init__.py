"""The hosted engine's high availability for Python programs: VDSM and the set-up tools import this package.

Names, arguments and results are those of the Python release 2.5; the services behind them are programs of their own,
reached over the broker's socket. Standard library only, for Python 3.6 and newer.
"""
import logging

# Who wants to see messages sets logging up; others must not find them on their standard error.
logging.getLogger(__name__).addHandler(logging.NullHandler())
