//! What steps are done with: agents, memory servers and switches.
//!
//! A brick's address may be two, `DATA,MANAGEMENT`: the first is what compute bricks reach through the switches, the second what the
//! controller itself asks.

pub(crate) mod address;
mod agents;
mod machines;
pub(crate) mod memory;
mod switches;

use futures_util::future::BoxFuture;
use rackmem_api::agent::{AgentClient, VmView};
use rackmem_api::problem::ProblemType;
use rackmem_api::serve::TlsFiles;
use rackmem_api::{AttachmentId, Problem};
use rackmem_far::{Credentials, PoolView};
use rackmem_rack::{Name, PARTS_MAX, SegmentId, Step};

use crate::compute::{Call, Told};
use address::management;
use agents::Agents;
pub(crate) use agents::told;
use memory::Memory;
use switches::Switches;

use crate::deed::{Deed, Placed};
use crate::order::Order;

/// What is asked how it is.
#[derive(Clone, Debug)]
pub enum Target {
    /// A compute brick's agent.
    Agent(Name, String),
    /// A memory server.
    Memory(Name, String),
    /// A switch.
    Switch(Name, String),
}

impl Target {
    pub(crate) fn name(&self) -> &Name {
        let (Self::Agent(name, _) | Self::Memory(name, _) | Self::Switch(name, _)) = self;
        name
    }
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// What the agent's table has of ours.
    Table(Vec<TableEntry>),
    /// What a memory server has; none of a simulated one.
    Pool(Option<PoolView>),
    /// The pairs of ports that the switch has connected.
    Pairs(Vec<[u16; 2]>),
}

/// An entry of an agent's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// The segment that it leads to.
    pub segment: SegmentId,
    /// What the agent says if it does not reach the memory server.
    pub unreachable: Option<String>,
}

/// Does steps, and looks. Each step may be done twice; after an error it may have been done or not.
pub trait Hands: std::fmt::Debug + Send + Sync + 'static {
    /// Does a step. Of one that makes a segment it gives where the segment is, unless it is only simulated.
    fn carry_out<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Option<Placed>, Problem>>;

    /// Does an errand.
    fn errand<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Told, Problem>>;

    /// Looks.
    fn look<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Seen, Problem>>;

    /// The machines that the agent of a compute brick has.
    fn machines<'a>(
        &'a self,
        brick: &'a Name,
        address: &'a str,
    ) -> BoxFuture<'a, Result<Vec<VmView>, Problem>>;

    /// Who asks the agent of a compute brick for what is only passed on: consoles, logs, accesses to a page.
    fn agent(&self, brick: &Name, address: &str) -> Result<AgentClient, Problem>;
}

/// Hands that reach real agents (or simulated ones), memory servers and switches.
#[derive(Debug)]
pub struct RackHands {
    agents: Agents,
    memory: Memory,
    switches: Switches,
}

impl RackHands {
    /// Hands that show agents these certificates and this token, and memory servers these credentials.
    pub fn new(tls: Option<TlsFiles>, token: Option<String>, far: Credentials) -> Self {
        Self { agents: Agents::new(tls, token), memory: Memory::new(far), switches: Switches::default() }
    }

    async fn step(&self, order: &Order) -> Result<Option<Placed>, Problem> {
        if let Step::SegmentCreate { brick, segment, pages, .. } = &order.step {
            let address = order.management(brick)?;
            return self.memory.create(address, *segment, *pages, order.deed(*segment)?).await;
        }
        self.act(order).await.map(|()| None)
    }

    async fn act(&self, order: &Order) -> Result<(), Problem> {
        match &order.step {
            Step::PowerOn { brick } => Err(Problem::new(
                ProblemType::Unsupported,
                format!("'{brick}' is off and nothing here can power it on: start it by hand"),
            )),
            // A plan powers off only what it powered on, and that cannot have happened.
            Step::PowerOff { .. } => Ok(()),
            // It has an answer, which is given in `step`.
            Step::SegmentCreate { .. } => Ok(()),
            Step::SegmentRemove { brick, segment, .. } => {
                match (order.management(brick), order.deeds.get(segment)) {
                    (Ok(address), Some(deed)) => self.memory.destroy(address, *segment, deed).await,
                    // Without a server to ask or a deed it was never made.
                    _ => Ok(()),
                }
            }
            Step::Connect { switch, pairs } => {
                self.switches.change(switch, order.addresses.get(switch), pairs, true, order.reign).await
            }
            Step::Disconnect { switch, pairs } => {
                self.switches.change(switch, order.addresses.get(switch), pairs, false, order.reign).await
            }
            Step::NetPortAdd { brick, server, segment, entry } => {
                self.agents.netport_add(order, brick, server, *segment, entry).await
            }
            Step::NetPortRemove { brick, segment, .. } => {
                self.agents.netport_remove(order, brick, *segment).await
            }
            // Whoever has the circuit to an accelerator brick has its slots; the brick itself is not told.
            Step::AcceleratorBind { .. } | Step::AcceleratorUnbind { .. } => Ok(()),
            Step::Attach { brick, segments } => self.agents.present(order, brick, segments).await,
            Step::Detach { brick, segments } => self.agents.take_back(order, brick, segments).await,
            Step::Migrate { brick, from, to } => self.agents.migrate(order, brick, from, to).await,
        }
    }
}

impl Hands for RackHands {
    fn carry_out<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Option<Placed>, Problem>> {
        Box::pin(self.step(order))
    }

    fn errand<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Told, Problem>> {
        Box::pin(self.agents.errand(call))
    }

    fn machines<'a>(
        &'a self,
        brick: &'a Name,
        address: &'a str,
    ) -> BoxFuture<'a, Result<Vec<VmView>, Problem>> {
        Box::pin(self.agents.machines(brick, address))
    }

    fn agent(&self, brick: &Name, address: &str) -> Result<AgentClient, Problem> {
        self.agents.client(brick, management(address))
    }

    fn look<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Seen, Problem>> {
        Box::pin(async move {
            match target {
                Target::Agent(name, address) => self.agents.look(name, address).await.map(Seen::Table),
                Target::Memory(_, address) => self.memory.look(management(address)).await,
                Target::Switch(name, address) => self.switches.look(name, address).await.map(Seen::Pairs),
            }
        })
    }
}

impl Order {
    /// The address of a brick, as compute bricks reach it.
    fn data(&self, brick: &Name) -> Result<&str, Problem> {
        self.addresses.get(brick).map(|address| address::data(address)).ok_or_else(|| no_address(brick))
    }

    fn deed(&self, segment: SegmentId) -> Result<&Deed, Problem> {
        self.deeds.get(&segment).ok_or_else(|| {
            Problem::new(
                ProblemType::Internal,
                format!("segment {segment} has no deed, so nobody can open it"),
            )
        })
    }

    /// The address of a brick, as the controller reaches it.
    fn management(&self, brick: &Name) -> Result<&str, Problem> {
        self.addresses.get(brick).map(|address| management(address)).ok_or_else(|| no_address(brick))
    }
}

pub(crate) fn no_address(brick: &Name) -> Problem {
    let detail = format!("'{brick}' is registered without an address: remove it and register it with one");
    Problem::new(ProblemType::Unsupported, detail)
}

/// The name of a segment's attachment on a compute brick.
pub fn attachment_of(segment: SegmentId) -> String {
    format!("s{segment}")
}

/// The segment whose attachment has this name.
pub fn segment_of(attachment: &AttachmentId) -> Option<SegmentId> {
    let (reservation, part) = attachment.as_str().strip_prefix('s')?.split_once('.')?;
    let (reservation, part): (u64, u32) = (reservation.parse().ok()?, part.parse().ok()?);
    (part < PARTS_MAX).then(|| SegmentId::new(rackmem_rack::ReservationId(reservation), part))
}
