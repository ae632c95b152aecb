"""The units of text: tokens, words, segments, and the formats that they are written in."""
