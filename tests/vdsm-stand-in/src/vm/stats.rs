//! `VM.getStats`.

use std::time::Duration;

use clock::{Clock, Monotonic, SystemClock};
use engine_vm::VmActivity;
use serde_json::{Value, json};

use super::life::State;
use crate::stomp::event_time;

/// Shortest time between two samples of processor time.
const APART: Duration = Duration::from_secs(2);

/// How much of a processor the VM uses.
#[derive(Debug, Default)]
pub(super) struct Processor {
    last: Option<(Monotonic, Duration)>,
    /// In percent of one processor, between the last two samples.
    percent: Option<f64>,
}

impl Processor {
    /// Takes in how much its process has used since it began.
    pub fn sample(&mut self, now: Monotonic, used: Duration) {
        let Some((then, before)) = self.last else {
            self.last = Some((now, used));
            return;
        };
        let passed = now.saturating_since(then);
        if passed >= APART {
            self.percent = Some(used.saturating_sub(before).as_secs_f64() / passed.as_secs_f64() * 100.0);
            self.last = Some((now, used));
        }
    }
}

/// The answer for one VM.
pub(super) fn of(id: &str, vm: &State) -> Value {
    let mut stats = json!({
        "statusTime": event_time().to_string(),
        "status": vm.activity.word(),
        "vmId": id,
    });
    if let Some(exit) = &vm.exit {
        merge(&mut stats, exit.stats());
        return stats;
    }
    let display: Vec<Value> = vm
        .console
        .iter()
        .map(|(address, port)| {
            json!({"tlsPort": "-1", "ipAddress": address, "type": "vnc", "port": port.to_string()})
        })
        .collect();
    let elapsed = SystemClock.monotonic().saturating_since(vm.begun).as_secs();
    let pause_code = if vm.activity == VmActivity::PausedByIoError { "EIO" } else { "NOERR" };
    let percent = vm.processor.percent;
    merge(
        &mut stats,
        json!({
            "vmType": "kvm",
            "kvmEnable": "true",
            "acpiEnable": "true",
            "elapsedTime": elapsed.to_string(),
            "monitorResponse": "0",
            "timeOffset": "0",
            "clientIp": "",
            "pauseCode": pause_code,
            // The whole of it: what the guest and what QEMU itself used is not told apart here.
            "cpuUser": format!("{:.2}", percent.unwrap_or(0.0)),
            "cpuSys": "0.00",
            "cpuActual": percent.is_some(),
            "displayInfo": display,
            "network": {},
            "disks": {},
            "memUsage": "0",
        }),
    );
    if let Some(progress) = vm.migration.progress() {
        stats["migrationProgress"] = progress.into();
    }
    stats
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_use_is_what_was_used_between_two_samples() {
        let mut processor = Processor::default();
        processor.sample(Monotonic::from_secs(10), Duration::from_secs(5));
        assert_eq!(processor.percent, None);
        processor.sample(Monotonic::from_secs(11), Duration::from_secs(6));
        assert_eq!(processor.percent, None, "too soon");
        processor.sample(Monotonic::from_secs(14), Duration::from_secs(6));
        assert_eq!(processor.percent, Some(25.0));
    }
}
