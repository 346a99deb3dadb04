//! The controller that lends more far memory to this brick's machines (S7 asks S10, Figure 3 of D4.1). It decides, reserves, and
//! has this very agent attach what it reserved; the agent only says how much a guest is to have.

use rackmem_api::controller::{ControllerClient, MachineResize};
use rackmem_api::operation::WaitQuery;
use rackmem_api::problem::ProblemType;
use rackmem_api::{ApiError, OperationState, Problem, VmName};
use rackmem_types::Bytes;

/// Seconds of one wait for the controller; attaching brings a machine's memory home first, which can take longer.
const WAIT_S: u32 = 60;

/// A controller that is asked for more.
#[derive(Clone, Debug)]
pub struct Lender {
    client: ControllerClient,
}

impl Lender {
    /// The controller behind `client`, whose token is that of the brick.
    pub fn new(client: ControllerClient) -> Self {
        Self { client }
    }

    /// Has what is reserved for a machine fit a guest of `memory`; returns when that is attached, or released.
    pub(crate) async fn fit(&self, vm: &VmName, memory: Bytes) -> Result<(), Problem> {
        let asked = async {
            let client = self.client.clone().under_present().await?;
            let mut operation = client.vm_fit(vm, MachineResize { memory }).await?;
            while !operation.state.is_final() {
                operation = client.operation_wait(operation.id, WaitQuery { timeout: WAIT_S }).await?;
            }
            Ok(operation)
        };
        let operation = asked.await.map_err(|error: ApiError| match error {
            ApiError::Problem(problem) => problem,
            other => Problem::new(ProblemType::Unavailable, other.to_string()).retry_after(5),
        })?;
        match (operation.state, operation.error) {
            (OperationState::Done, _) => Ok(()),
            (_, Some(problem)) => Err(problem),
            (_, None) => Err(Problem::new(ProblemType::Cancelled, "it was cancelled at the controller")),
        }
    }
}
