//! What the agents say of the guests: the request is judged by the books, the machine's agent is asked, and its answer is passed on.
//! Nothing of it is kept.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rackmem_api::agent::{Access, AgentClient, Console, ElasticView, LogQuery, WatchQuery};
use rackmem_api::controller::Who;
use rackmem_api::problem::ProblemType;
use rackmem_api::{ApiError, Problem, VmName};
use rackmem_rack::Name;

use crate::controller::Controller;
use crate::hands;

/// Seconds after which an agent that did not answer may be asked again.
const RETRY_S: u32 = 1;

/// A machine on its brick, and who asks the agent there.
struct Guest {
    brick: Name,
    vm: VmName,
    agent: AgentClient,
}

impl Controller {
    pub(crate) async fn machine_elastic_show(
        &self,
        who: &Who,
        name: &VmName,
    ) -> Result<Option<ElasticView>, Problem> {
        let guest = self.guest(who, name)?;
        guest.agent.vm_elastic_show(name).await.map_err(|error| guest.told(error))
    }

    pub(crate) async fn machine_console(&self, who: &Who, name: &VmName) -> Result<Console, Problem> {
        let guest = self.guest(who, name)?;
        guest.agent.vm_console(name).await.map_err(|error| guest.told(error))
    }

    pub(crate) async fn machine_log(
        &self,
        who: &Who,
        name: &VmName,
        query: LogQuery,
    ) -> Result<Vec<u8>, Problem> {
        let guest = self.guest(who, name)?;
        guest.agent.vm_log(name, query).await.map_err(|error| guest.told(error))
    }

    pub(crate) async fn machine_watch(
        &self,
        who: &Who,
        name: &VmName,
        query: WatchQuery,
    ) -> Result<BoxStream<'static, Result<Access, Problem>>, Problem> {
        let guest = self.guest(who, name)?;
        let accesses = guest.agent.vm_watch(name, query).await.map_err(|error| guest.told(error))?;
        Ok(accesses.map(move |access| access.map_err(|error| guest.told(error))).boxed())
    }

    fn guest(&self, who: &Who, name: &VmName) -> Result<Guest, Problem> {
        let (brick, address) = {
            let state = self.ledger.lock();
            let brick = state.machine_brick(state.machine_of(who, name)?).ok_or_else(|| {
                let detail = format!("no brick is chosen for '{name}' yet: wait until it is made");
                Problem::new(ProblemType::WrongState, detail)
            })?;
            (brick.name().clone(), brick.spec().address.clone())
        };
        let address = address.ok_or_else(|| hands::no_address(&brick))?;
        let agent = self.hands.agent(&brick, &address)?;
        Ok(Guest { brick, vm: name.clone(), agent })
    }
}

impl Guest {
    /// What the agent refused, as whoever asked the controller is to understand it.
    fn told(&self, error: ApiError) -> Problem {
        let Self { brick, vm, .. } = self;
        let problem = hands::told(error);
        match problem.kind {
            ProblemType::Unavailable | ProblemType::Timeout => {
                let detail = format!("the agent of '{brick}', which has '{vm}', does not answer: {problem}");
                Problem::new(ProblemType::Unavailable, detail).retry_after(RETRY_S)
            }
            // It is the controller that the agent does not know, not who asks the controller.
            ProblemType::Unauthenticated | ProblemType::Forbidden => {
                let detail = format!("the agent of '{brick}' does not let the controller in: {problem}");
                Problem::new(ProblemType::Backend, detail)
            }
            ProblemType::NotFound => {
                let detail = format!(
                    "{brick} does not have the machine '{vm}': it is not made yet, or is gone and has to be deleted here, too"
                );
                Problem::new(ProblemType::WrongState, detail)
            }
            _ => problem,
        }
    }
}
