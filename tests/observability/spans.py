"""Spans that an OTLP receiver has got, as tests compare them."""

from otlp_receiver import attributes

REMOTE, HAS_REMOTE = 0x200, 0x100
STATUSES = {0: "UNSET", 1: "OK", 2: "ERROR"}


def by_name(spans):
    """The spans by name; a name that is there twice is the test's error."""
    found = {span.name: span for span in spans}
    assert len(found) == len(spans), sorted(span.name for span in spans)
    return found


def attributes_of(span):
    """A span's, or a span event's, attributes."""
    return attributes(span.attributes)


def is_remote(span):
    """Whether it is said that its parent is another program's."""
    assert span.flags & HAS_REMOTE
    return bool(span.flags & REMOTE)


def nodes_of_spans(spans):
    """As agents.nodes_of_lines, by span id: (name, parent's span id, category), of spans and their events."""
    nodes = {}
    for span in spans:
        found = attributes_of(span)
        if "relay_mp.mark.uuid" in found:
            nodes[span.span_id] = (span.name.removeprefix("mark:"), span.parent_span_id, None)
        else:
            nodes[span.span_id] = (span.name, span.parent_span_id, found["relay_mp.scope_type"])
        for event in span.events:
            uuid = bytes.fromhex(attributes_of(event)["relay_mp.mark.uuid"].replace("-", ""))
            nodes[uuid[8:]] = (event.name, span.span_id, None)
    return nodes


def nodes_by_span_id(nodes):
    """The nodes of agents.nodes_of_lines with span ids for uuids; a parent that has no events is none."""

    def span_id(uuid):
        return bytes.fromhex(uuid.replace("-", ""))[8:] if uuid in nodes else b""

    return {span_id(uuid): (name, span_id(parent), category) for uuid, (name, parent, category) in nodes.items()}
