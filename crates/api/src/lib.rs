//! REST types, traits, routers and clients of the agent and the controller. No state, no decision.
