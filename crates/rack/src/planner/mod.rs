//! Deciding: from the rack as it is believed and a request to a plan. Nothing here changes the rack; the same rack and request
//! always give the same plan.

mod compute;
mod drain;
mod place;
mod plan;
mod refusal;
mod release;
mod relocate;
mod replace;
mod reserve;
pub(crate) mod steps;
mod stock;

pub use drain::{drain, drain_next, drain_request};
pub use plan::{Grant, NetPort, Plan, Purpose, Step};
pub use refusal::{Around, Reason, Refusal, Shortage, why};
pub use release::{release, shrink, undo};
pub use replace::replace_lost;
pub use reserve::{SPREAD_MAX, grow, reserve};
pub use steps::enter_again;

use crate::{Rack, RackError, Reservation, ReservationId, State};

/// The reservation, if it is applied and no plan is under way on it.
fn applied(rack: &Rack, id: ReservationId) -> Result<&Reservation, RackError> {
    let reservation = rack.reservation(id)?;
    match (reservation.state, &reservation.pending) {
        (State::Applied, None) => Ok(reservation),
        (State::Applied, Some(_)) => {
            Err(RackError::State { id, is: State::Applied, needs: "wait for the plan that is under way" })
        }
        (State::Reserved, None) => {
            Err(RackError::State { id, is: State::Reserved, needs: "apply or release it first" })
        }
        (is, _) => Err(RackError::State { id, is, needs: "only an applied one can be changed" }),
    }
}

/// What was found a moment ago in the same rack is not there: the index would have to be wrong.
fn vanished(what: &str) -> RackError {
    RackError::Snapshot(format!("{what} that the index names is not there"))
}
