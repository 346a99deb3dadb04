//! A brick as the API shows it.

use rackmem_api::agent::{
    Accelerator, AcceleratorKind, AttachmentState, AttachmentView, FarPart, FarState, GuestMemory,
    HostMemory, HostView, NumaNode, PagerState, PagerView, Power, PowerSource, Pressure, VmMemory, VmView,
    kind,
};
use rackmem_types::Bytes;

use super::{Brick, SimAttachment, SimVm};

/// Watts of a simulated brick at rest, and of one processor at work: the order of a two-socket server.
const WATTS_IDLE: f64 = 90.0;
const WATTS_CPU: f64 = 8.0;

impl Brick {
    pub(crate) fn host_view(&self, started_ms: u64, now: u64) -> HostView {
        let busy: u32 = self.vms.values().filter(|vm| vm.is_on()).map(|vm| vm.vcpus).sum();
        let sum = |of: fn(&SimVm) -> Bytes| Bytes(self.vms.values().map(|vm| of(vm).0).sum());
        let local = sum(SimVm::local);
        let memory = HostMemory {
            total: self.config.memory,
            available: Bytes(self.config.pool().0.saturating_sub(local.0)),
            pool: self.config.pool(),
            promised: self.promised_local(None),
            local,
            far: sum(SimVm::far),
        };
        HostView {
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.generation,
            cores: self.config.cores,
            memory,
            numa: vec![NumaNode {
                id: 0,
                cpus: (0..self.config.cores).collect(),
                memory: memory.total,
                free: memory.available,
                distances: vec![10],
            }],
            pressure: Some(Pressure::default()),
            power: Some(Power {
                watts: WATTS_IDLE + WATTS_CPU * f64::from(busy.min(self.config.cores)),
                source: PowerSource::Modelled,
                basis: "a simulated brick: so much at rest, and so much for each virtual processor"
                    .to_owned(),
            }),
            accelerator: simulated(),
            qemu: None,
            memory_servers: self.config.memory_servers.clone(),
            vms: self.vms.len() as u32,
            attachments: self.attachments.len() as u32,
            operations: self.operations.running() as u32,
            started_ms,
            now_ms: now,
        }
    }

    pub(crate) fn vm_view(&self, vm: &SimVm, now: u64) -> VmView {
        VmView {
            name: vm.name.clone(),
            state: vm.state,
            reason: vm.reason.clone(),
            origin: vm.origin,
            driver: vm.driver,
            pid: vm.pid,
            vcpus: vm.vcpus,
            boot: vm.boot.clone(),
            accelerator: Some(simulated()),
            qemu: None,
            memory: self.memory_view(vm, now),
            pager: vm
                .local_limit
                .filter(|_| vm.is_on())
                .map(|_| PagerView { pid: vm.pid.map(|pid| pid + 1), state: PagerState::Up }),
            elastic: vm.elastic.clone(),
            attachments: vm.attachments.clone(),
            operation: self.operations.changing_vm(&vm.name).map(|operation| operation.id),
            warnings: Vec::new(),
            created_ms: vm.created_ms,
            started_ms: vm.started_ms,
        }
    }

    fn memory_view(&self, vm: &SimVm, now: u64) -> VmMemory {
        let size = vm.size();
        VmMemory {
            size,
            target: vm.target,
            max: vm.max,
            base: vm.base,
            plugged: vm.plugged,
            ballooned: vm.ballooned,
            local_limit: vm.local_limit,
            local: vm.local(),
            far: vm.far(),
            parts: self.parts(vm),
            guest: vm.is_on().then(|| GuestMemory {
                total: size,
                available: Bytes(size.0 - vm.used.0),
                free: Bytes((size.0 - vm.used.0) / 2),
                at_ms: now,
                ..GuestMemory::default()
            }),
        }
    }

    /// Where a machine's far memory is: attachments are filled one after the other, memory servers alike.
    fn parts(&self, vm: &SimVm) -> Vec<FarPart> {
        if vm.local_limit.is_none() || !vm.is_on() {
            return Vec::new();
        }
        let mut rest = vm.far().0;
        let attached = vm.attachments.iter().filter_map(|id| self.attachments.get(id));
        let mut parts: Vec<_> = attached
            .map(|SimAttachment { entry, .. }| {
                let used = rest.min(entry.size().0);
                rest -= used;
                FarPart {
                    server: entry.server.clone(),
                    segment: entry.segment,
                    class: Some(entry.class),
                    attachment: Some(entry.id.clone()),
                    reserved: entry.size(),
                    used: Bytes(used),
                    state: FarState::Up,
                }
            })
            .collect();
        let beyond = self.beyond(vm.promised.far, &vm.attachments).0;
        let servers =
            if vm.memory_servers.is_empty() { &self.config.memory_servers } else { &vm.memory_servers };
        if beyond > 0 {
            let count = servers.len() as u64;
            parts.extend(servers.iter().map(|server| FarPart {
                server: server.clone(),
                segment: None,
                class: None,
                attachment: None,
                reserved: Bytes(beyond.div_ceil(count)),
                used: Bytes(rest.div_ceil(count)),
                state: FarState::Up,
            }));
        }
        parts
    }

    pub(crate) fn attachment_view(&self, attachment: &SimAttachment) -> AttachmentView {
        let id = &attachment.entry.id;
        let state = match self.operations.changing_attachment(id).map(|operation| operation.kind.as_str()) {
            Some(kind::ATTACHMENT_CREATE) => AttachmentState::Attaching,
            Some(kind::ATTACHMENT_DELETE) => AttachmentState::Detaching,
            _ => AttachmentState::Up,
        };
        AttachmentView {
            entry: attachment.entry.shown(),
            state,
            reason: None,
            vm: self.owner(id).cloned(),
            created_ms: attachment.created_ms,
        }
    }
}

fn simulated() -> Accelerator {
    Accelerator { kind: AcceleratorKind::Simulated, reason: "a simulated machine".to_owned() }
}
