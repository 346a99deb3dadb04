//! The rack as a graph, and the planner over it. Pure: no IO, no clock, no randomness.
