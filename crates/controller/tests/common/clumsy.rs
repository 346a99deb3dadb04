//! Real hands that do a leg twice, or report a failure after it was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use rackmem_api::Problem;
use rackmem_api::agent::{AgentClient, VmView};
use rackmem_api::problem::ProblemType;
use rackmem_controller::{Call, Hands, Order, Placed, RackHands, Seen, Target, Told};
use rackmem_far::Credentials;
use rackmem_rack::Name;

#[derive(Debug)]
pub(crate) struct Clumsy {
    real: RackHands,
    twice: bool,
    /// The step or errand of that number fails, counted from 1.
    fails_at: AtomicUsize,
    legs: AtomicUsize,
    /// It never gets to see how anything is.
    blind: bool,
}

impl Clumsy {
    pub(crate) fn new(twice: bool, fails_at: usize) -> Arc<Self> {
        Arc::new(Self::made(twice, fails_at, false))
    }

    pub(crate) fn blind() -> Arc<Self> {
        Arc::new(Self::made(false, 0, true))
    }

    fn made(twice: bool, fails_at: usize, blind: bool) -> Self {
        let real = RackHands::new(None, None, Credentials::default());
        Self { real, twice, fails_at: AtomicUsize::new(fails_at), legs: AtomicUsize::new(0), blind }
    }

    /// The step or errand that comes as that number from now on fails.
    pub(crate) fn fail_after(&self, number: usize) {
        self.fails_at.store(self.legs.load(Ordering::Relaxed) + number, Ordering::Relaxed);
    }

    fn fails(&self) -> Result<(), Problem> {
        if self.legs.fetch_add(1, Ordering::Relaxed) + 1 == self.fails_at.load(Ordering::Relaxed) {
            return Err(Problem::new(ProblemType::Backend, "told to fail"));
        }
        Ok(())
    }
}

impl Hands for Clumsy {
    fn carry_out<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Option<Placed>, Problem>> {
        Box::pin(async move {
            let first = self.real.carry_out(order).await?;
            let done = if self.twice { self.real.carry_out(order).await? } else { first };
            assert_eq!(first, done, "{}", order.step);
            self.fails().map(|()| done)
        })
    }

    fn errand<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Told, Problem>> {
        Box::pin(async move {
            let mut told = self.real.errand(call).await?;
            if self.twice {
                told = self.real.errand(call).await?;
            }
            self.fails().map(|()| told)
        })
    }

    fn machines<'a>(
        &'a self,
        brick: &'a Name,
        address: &'a str,
    ) -> BoxFuture<'a, Result<Vec<VmView>, Problem>> {
        self.real.machines(brick, address)
    }

    fn agent(&self, brick: &Name, address: &str) -> Result<AgentClient, Problem> {
        self.real.agent(brick, address)
    }

    fn look<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Seen, Problem>> {
        if self.blind { Box::pin(std::future::pending()) } else { self.real.look(target) }
    }
}
