"""Simulators: many copies of one environment behind one small interface."""

from suites.envs.mujoco import VectorEnv, VectorStep, make_vector

__all__ = ["VectorEnv", "VectorStep", "make_vector"]
