//! Being overtaken: who is asked obeys a controller whose reign is newer. What it has is that one's affair, and is neither done nor
//! undone here any more. It is told once of each brick and switch; a reign never falls, so it lasts as long as this controller.

use rackmem_api::Problem;
use rackmem_api::problem::ProblemType;
use rackmem_rack::Name;

use crate::ledger::{Ledger, State};

/// Whether whoever refused obeys another controller.
pub(crate) fn is_overtaken(failure: &Problem) -> bool {
    failure.kind == ProblemType::StaleGeneration
}

impl Ledger {
    /// Notes that `asked` refused this reign, and says what that means.
    pub(crate) fn overtaken(&self, state: &mut State, asked: &Name, failure: Problem) -> Problem {
        let detail = format!(
            "'{asked}' is ruled by another controller now, and this one changes nothing there any more: end one of the two ({})",
            failure.detail
        );
        if state.overtaken.insert(asked.clone()) {
            tracing::error!("{detail}");
            self.tell(state, "controller.overtaken", asked.as_str(), detail.clone(), None);
        }
        Problem { detail, ..failure }
    }
}
