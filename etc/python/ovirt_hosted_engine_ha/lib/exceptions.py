"""What callers catch."""


class DisconnectionError(Exception):
    """Kept for those who catch it; nothing raises it any more."""


class BrokerConnectionError(Exception):
    """The broker cannot serve this connection now."""


class RequestError(Exception):
    """The broker refused a request; its reason is the text."""


class MetadataError(Exception):
    """A block is not understood; it costs that host's row only."""
