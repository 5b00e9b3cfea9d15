"""Text mixers, fusions, and the decoder block that joins one of each."""

from captioner.decoders.decoder_block import MIXERS, DecoderBlock
from captioner.decoders.fusion import FUSIONS, Fusion
from captioner.decoders.text_mixer import TextMixer

__all__ = ["FUSIONS", "MIXERS", "DecoderBlock", "Fusion", "TextMixer"]
