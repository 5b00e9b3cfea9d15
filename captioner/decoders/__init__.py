"""Text mixers and the decoder block that joins one with a fusion."""

from captioner.decoders.decoder_block import MIXERS, DecoderBlock

__all__ = ["MIXERS", "DecoderBlock"]
