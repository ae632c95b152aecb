"""The steps of a batch on its device: samples → device, encoder, scores of the tokens, results → host.

The search between the encoder and the scores is NeMo's on a GPU, and that of `cpu/search.py` on a CPU. Nothing here
waits for the device but `Download.arrays`.
"""
