//! What a worker has in hand: one leg of a course.

use std::fmt;

use rackmem_api::Generation;
use rackmem_rack::{LatencyClass, Name};
use tokio_util::sync::CancellationToken;

use crate::compute::{Call, Course, Leg};
use crate::ledger::State;
use crate::order::{self, Order};
use crate::views::class_of;

/// A leg, with all that has to be known for it.
#[derive(Debug)]
pub(crate) enum Doing {
    Step(Order),
    Errand(Call),
}

impl Doing {
    /// That of a course.
    pub(crate) fn new(state: &State, reign: Generation, course: &Course, leg: &Leg) -> Self {
        let rack = &state.rack;
        match leg {
            Leg::Step(step) => {
                let reservation = course.plan().and_then(|plan| rack.reservation(plan.reservation()).ok());
                let class = reservation.map(|reservation| reservation.request.class);
                let class = class_of(class.unwrap_or(LatencyClass::Interrack));
                Self::Step(Order::new(state, reign, class, step.clone()))
            }
            Leg::Errand(errand) => {
                let address = order::address(rack, errand.brick());
                Self::Errand(Call {
                    errand: errand.clone(),
                    reign,
                    address,
                    cancel: CancellationToken::new(),
                })
            }
        }
    }

    /// An errand may be given up, when it is cancelled by this.
    pub(crate) fn cancel_by(&mut self, cancel: CancellationToken) {
        if let Self::Errand(call) = self {
            call.cancel = cancel;
        }
    }

    /// It may not be given up any more.
    pub(crate) fn carry_through(&mut self) {
        self.cancel_by(CancellationToken::new());
    }

    /// Waits until it is to be given up; for ever where it may not be.
    pub(crate) async fn cancelled(&self) {
        match self {
            Self::Errand(call) => call.cancel.cancelled().await,
            Self::Step(_) => std::future::pending().await,
        }
    }

    /// The brick or switch that is asked.
    pub(crate) fn asked(&self) -> &Name {
        match self {
            Self::Step(order) => order.asked(),
            Self::Errand(call) => call.errand.brick(),
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(order) => order.step.fmt(f),
            Self::Errand(call) => call.errand.fmt(f),
        }
    }
}
