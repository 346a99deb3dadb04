//! Switches, each by the driver that its address names. A switch without an address forwards by itself: nothing is told to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rackmem_api::problem::ProblemType;
use rackmem_api::{Generation, Problem};
use rackmem_rack::Name;
use rackmem_switch::{Pair, SwitchDriver, SwitchError};

#[derive(Debug, Default)]
pub(super) struct Switches {
    open: Mutex<HashMap<Name, Arc<dyn SwitchDriver>>>,
}

impl Switches {
    pub(super) async fn change(
        &self,
        switch: &Name,
        address: Option<&String>,
        pairs: &[[u16; 2]],
        connected: bool,
        reign: Generation,
    ) -> Result<(), Problem> {
        let Some(address) = address else { return Ok(()) };
        let pairs: Result<Vec<Pair>, _> = pairs.iter().map(|[a, b]| Pair::new(*a, *b)).collect();
        let pairs = pairs.map_err(|error| refused(switch, &error))?;
        let driver = self.driver(switch, address)?;
        let made = blocking(move || {
            if connected { driver.connect(&pairs, reign.0) } else { driver.disconnect(&pairs, reign.0) }
        });
        made.await?.map(|_| ()).map_err(|error| refused(switch, &error))
    }

    pub(super) async fn look(&self, switch: &Name, address: &str) -> Result<Vec<[u16; 2]>, Problem> {
        let driver = self.driver(switch, address)?;
        let observed = blocking(move || driver.observed()).await?.map_err(|error| refused(switch, &error))?;
        Ok(observed.pairs.iter().map(|pair| <[u16; 2]>::from(*pair)).collect())
    }

    fn driver(&self, switch: &Name, address: &str) -> Result<Arc<dyn SwitchDriver>, Problem> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = open.get(switch) {
            return Ok(Arc::clone(driver));
        }
        let driver: Arc<dyn SwitchDriver> =
            Arc::from(rackmem_switch::open(address).map_err(|error| refused(switch, &error))?);
        open.insert(switch.clone(), Arc::clone(&driver));
        Ok(driver)
    }
}

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let called = tokio::task::spawn_blocking(call).await;
    called.map_err(|error| Problem::new(ProblemType::Internal, format!("a switch's driver failed: {error}")))
}

fn refused(switch: &Name, error: &SwitchError) -> Problem {
    let kind = match error {
        SwitchError::Overtaken { .. } => ProblemType::StaleGeneration,
        _ => ProblemType::Backend,
    };
    Problem::new(kind, format!("switch '{switch}': {error}"))
}
