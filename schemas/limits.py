"""Sizes that both ends of the wire keep to, in bytes unless the name says otherwise."""

KIB = 1024
MIB = 1024 * KIB

#: The largest MQTT packet, topic and fixed header included.
MAX_PACKET_BYTES = MIB
#: What remains for a payload under the longest topic and the fixed header.
MAX_PAYLOAD_BYTES = MAX_PACKET_BYTES - 512
MAX_HEADER_BYTES = 64 * KIB
MAX_SIGNATURE_BYTES = 4 * KIB
#: Plain JSON that a person publishes.
MAX_SUBMIT_BYTES = 64 * KIB
#: An object up to this size rides with its manifest.
MAX_INLINE_BYTES = 256 * KIB

MIN_CHUNK_BYTES = 64 * KIB
DEFAULT_CHUNK_BYTES = 256 * KIB
MAX_CHUNK_BYTES = MIB - 4 * KIB
#: Chunks asked for and not yet arrived, a transfer.
DEFAULT_CREDITS = 4
#: Chunk numbers in one need or get.
MAX_WANT = 64

#: The largest object (a model or an update) that any program agrees to receive.
MAX_OBJECT_BYTES = 4 * 1024 * MIB
#: The largest training graph, as it travels: its digests share a frame with those of a model.
MAX_GRAPH_BYTES = 1024 * MIB
#: Steps of a compressed downlink that one assignment lists.
MAX_DELTAS = 8
#: The newest step rides with its assignment up to this size.
MAX_INLINE_DELTA_BYTES = 64 * KIB
#: All steps' parts of a tail; with the digests of the largest model and graph they fit a frame.
MAX_DELTA_TAIL_BYTES = 256 * KIB
#: A manifest's tail carries one SHA-256 (32 bytes) a chunk.
MAX_CHUNKS = 16384
#: Clients in one assignment to one region; their ids, and those of the clients whose updates
#: were settled, must fit the header.
MAX_COHORT = 800
