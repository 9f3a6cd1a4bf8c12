"""Stands in for NVIDIA apex, whose kernels only compile with CUDA: the parts of its surface that tin uses.

As in apex of 2026-07: the packages and names, the arguments of constructors and kernels, what is a tensor and what a number,
the no-op flag, and its departures from torch.optim (`zero_grad` without arguments, rates and steps as tensors, a state that
stays where the file had it, a default rate that replaces those of the groups).
"""
