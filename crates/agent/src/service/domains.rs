//! VMs that somebody else started: they get far memory, and give it back.

use rackmem_api::agent::{Boot, DomainAttach, Driver, VmSpec, kind};
use rackmem_api::problem::ProblemType;
use rackmem_api::{Change, Operation, Problem, VmName};

use super::Agent;
use super::changes::whole;
use crate::foreign::{self, Foreign};
use crate::problem::{from_store, wrong_state};
use crate::step::Step;
use crate::store::{Effect, now_ms};
use crate::vm::{Domain, VmRecord, Wanted};

impl Agent {
    pub(super) async fn attach_domain(
        &self,
        change: &Change,
        domain: &str,
        request: DomainAttach,
    ) -> Result<Operation, Problem> {
        let found = foreign::find(domain, self.ground.machines.domains()).await?;
        let taken = self.ground.store.vm_list().await.map_err(from_store)?;
        if let Some(vm) = taken.iter().find(|vm| vm.alive() == Some(found.process)) {
            let detail = format!("process {} is '{}' already", found.process.pid, vm.name());
            return Err(Problem::new(ProblemType::Exists, detail));
        }
        let name = match &request.name {
            Some(name) => name.clone(),
            None => found.name(domain)?,
        };
        let mut record = record(name.clone(), found, request);
        self.take_servers_of_attachments(&mut record).await?;
        if record.memory_servers(&self.ground.config.memory_servers).is_empty() {
            let detail =
                "there is no memory server: name one with --memory-server, or start the agent with one";
            return Err(crate::problem::invalid(detail));
        }
        let mut effects = vec![Effect::VmInsert(Box::new(record.clone()))];
        effects.extend(
            record.spec.attachments.iter().map(|id| Effect::AttachmentGive(id.clone(), Some(name.clone()))),
        );
        let mut work = whole(&name, vec![Step::AttachFar]);
        work.when_undone = vec![Effect::VmRemove(name.clone())];
        self.engine.begin(change, kind::DOMAIN_ATTACH, name.as_str(), work, &effects).await
    }

    pub(super) async fn detach_domain(&self, change: &Change, name: &VmName) -> Result<Operation, Problem> {
        let record = self.load(name).await?;
        if record.domain.is_none() {
            let detail =
                format!("'{name}' was made by this agent: delete it with 'rackmem vm delete {name}'");
            return Err(wrong_state(detail));
        }
        let mut work = whole(name, vec![Step::BringHome]);
        work.when_done = vec![Effect::VmRemove(name.clone())];
        self.engine.begin(change, kind::DOMAIN_DETACH, name.as_str(), work, &[]).await
    }
}

fn record(name: VmName, found: Foreign, request: DomainAttach) -> VmRecord {
    let Foreign { process, libvirt, qmp, memory, vcpus } = found;
    let spec = VmSpec {
        name,
        memory,
        memory_max: None,
        local: Some(request.local),
        vcpus,
        boot: Boot::default(),
        memory_servers: request.memory_servers,
        attachments: request.attachments,
        far_node: None,
        growth: None,
        driver: if libvirt.is_some() { Driver::Libvirt } else { Driver::Qemu },
        start: false,
    };
    VmRecord {
        wanted: Wanted::Running,
        process: Some(process),
        domain: Some(Domain { libvirt, qmp }),
        ..VmRecord::new(spec, now_ms())
    }
}
