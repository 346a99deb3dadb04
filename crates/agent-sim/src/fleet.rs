//! Many simulated agents in one process, behind one router: `/agents/NAME/v1/…`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;

use crate::agent::SimAgent;
use crate::config::SimConfig;

/// Many simulated agents.
#[derive(Clone, Debug)]
pub struct SimFleet {
    agents: Arc<HashMap<String, Arc<SimAgent>>>,
}

impl SimFleet {
    /// An agent for each brick, found by the brick's name.
    pub fn new(bricks: impl IntoIterator<Item = SimConfig>) -> Self {
        let named = bricks.into_iter().map(|config| (config.name.clone(), Arc::new(SimAgent::new(config))));
        Self { agents: Arc::new(named.collect()) }
    }

    /// One of them.
    pub fn agent(&self, name: &str) -> Option<&Arc<SimAgent>> {
        self.agents.get(name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// The APIs of all of them.
    pub fn router(&self) -> Router {
        let agents = Arc::clone(&self.agents);
        rackmem_api::agent::fleet(move |name| agents.get(name).cloned())
    }
}
