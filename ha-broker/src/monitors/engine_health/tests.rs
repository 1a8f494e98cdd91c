use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::monitors::testing::{FakeVm, status_of};

fn reading(json: &str) -> String {
    json.to_owned()
}

fn final_of(before: VmState, status: &VmStatus) -> EngineStatus {
    match classify(before, Seen::Status(status)) {
        Verdict::Final(status) => status,
        Verdict::AskPage(activity) => panic!("asks the page for {activity:?}"),
    }
}

const STATES: [VmState; 4] = [VmState::Down, VmState::Up, VmState::DownUnexpected, VmState::DownMissing];

fn down(exit: Option<VmExit>) -> VmStatus {
    VmStatus { exit, ..status_of(VmActivity::Down) }
}

#[test]
fn every_line_of_the_table_in_every_earlier_state() {
    let text = || "why".to_owned();
    for before in STATES {
        let Verdict::Final(status) = classify(before, Seen::Unreachable) else { panic!() };
        assert_eq!(
            python_json(&status),
            r#"{"vm": "unknown", "health": "unknown", "detail": "unknown", "reason": "failed to getVmStats"}"#
        );

        let status = final_of(before, &down(None));
        let expected = if before == VmState::Up { VmState::DownMissing } else { before };
        assert_eq!((status.vm, status.health, status.detail.as_str()), (expected, Health::Bad, "unknown"));
        assert_eq!(status.reason.unwrap(), "vm not running on this host");

        let status = final_of(before, &down(Some(VmExit::LeaseRefused { detail: text() })));
        assert_eq!(
            python_json(&status),
            r#"{"vm": "down", "health": "bad", "detail": "Down", "reason": "Storage of VM is locked. Is another host already starting the VM?"}"#
        );
        let status = final_of(before, &down(Some(VmExit::StartFailed { detail: text() })));
        assert_eq!(
            python_json(&status),
            r#"{"vm": "down", "health": "bad", "detail": "Down", "reason": "bad vm status"}"#
        );
        let status = final_of(before, &down(Some(VmExit::MigratedAway)));
        assert_eq!(
            python_json(&status),
            r#"{"vm": "down", "health": "bad", "detail": "Down", "reason": "VM migrated away successfully"}"#
        );

        let expected = if before == VmState::Down { VmState::Down } else { VmState::DownUnexpected };
        for status in [
            down(Some(VmExit::Crashed { detail: text() })),
            down(Some(VmExit::Orderly { detail: text() })),
            status_of(VmActivity::MigrationDestination),
        ] {
            let word = status.activity.word();
            let status = final_of(before, &status);
            assert_eq!((status.vm, status.health, status.detail.as_str()), (expected, Health::Bad, word));
            assert_eq!(status.reason.unwrap(), "bad vm status");
        }

        for activity in [
            VmActivity::Paused,
            VmActivity::PausedByIoError,
            VmActivity::WaitForLaunch,
            VmActivity::RestoringState,
            VmActivity::PoweringUp,
        ] {
            let status = final_of(before, &status_of(activity));
            assert_eq!((status.vm, status.health), (VmState::Up, Health::Bad));
            assert_eq!(
                (status.detail.as_str(), status.reason.unwrap().as_str()),
                (activity.word(), "bad vm status")
            );
        }

        for activity in [
            VmActivity::Up,
            VmActivity::PoweringDown,
            VmActivity::MigrationSource,
            VmActivity::RebootInProgress,
            VmActivity::SavingState,
        ] {
            assert_eq!(classify(before, Seen::Status(&status_of(activity))), Verdict::AskPage(activity));
        }
    }
    assert_eq!(
        python_json(&running(VmActivity::Up, true)),
        r#"{"vm": "up", "health": "good", "detail": "Up"}"#
    );
    assert_eq!(
        python_json(&running(VmActivity::PoweringDown, false)),
        r#"{"vm": "up", "health": "bad", "detail": "Powering down", "reason": "failed liveliness check"}"#
    );
}

/// A page that answers as told, or not before it is let go.
#[derive(Default)]
struct FakePage {
    stuck: Option<Notify>,
    error: Option<String>,
}

#[async_trait]
impl Liveliness for FakePage {
    async fn check(&self) -> Result<(), String> {
        if let Some(stuck) = &self.stuck {
            stuck.notified().await;
        }
        self.error.clone().map_or(Ok(()), Err)
    }
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_was_up_and_is_gone_is_missing_until_it_is_up_again() {
    let vm = FakeVm::new(status_of(VmActivity::Up));
    let mut probe = EngineHealth::new(vm.clone(), Arc::new(FakePage::default()));
    let good = reading(r#"{"vm": "up", "health": "good", "detail": "Up"}"#);
    assert_eq!(probe.measure().await.unwrap(), Reading::plain(&good));
    // A hypervisor that cannot be asked changes nothing of what is remembered.
    vm.fail("gone for a coffee");
    let reading = probe.measure().await.unwrap();
    assert!(reading.value.contains(r#""vm": "unknown""#), "{reading:?}");
    assert_eq!(reading.note.unwrap(), "cannot reach the hypervisor: gone for a coffee");
    vm.set(down(None));
    for _ in 0..2 {
        assert!(probe.measure().await.unwrap().value.contains(r#""vm": "down_missing""#));
    }
    vm.set(status_of(VmActivity::Up));
    assert_eq!(probe.measure().await.unwrap().value, good);
}

#[tokio::test(start_paused = true)]
async fn an_event_during_a_slow_page_is_seen_at_once() {
    let vm = FakeVm::new(status_of(VmActivity::Up));
    let page = FakePage { stuck: Some(Notify::new()), ..FakePage::default() };
    let mut probe = EngineHealth::new(vm.clone(), Arc::new(page));
    let begun = Instant::now();
    let told = vm.clone();
    tokio::spawn(async move {
        time::sleep(Duration::from_secs(1)).await;
        told.set(down(Some(VmExit::Crashed { detail: "signal 9".to_owned() })));
        told.tell(VmEvent::Changed(VmActivity::Down));
    });
    // Was never seen up by this probe, so it is plainly down.
    let reading = probe.measure().await.unwrap();
    assert!(reading.value.contains(r#""vm": "down", "health": "bad", "detail": "Down""#), "{reading:?}");
    assert_eq!(reading.note.unwrap(), "the last VM here crashed: signal 9");
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_event_wakes_and_silence_does_not() {
    let vm = FakeVm::new(down(None));
    let mut probe = EngineHealth::new(vm.clone(), Arc::new(FakePage::default()));
    assert!(time::timeout(Duration::from_mins(1), probe.woken()).await.is_err());
    vm.tell(VmEvent::IoErrorPause);
    time::timeout(Duration::from_secs(1), probe.woken()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hypervisor_that_hangs_is_unknown_after_its_deadline() {
    let vm = FakeVm::new(down(None));
    vm.hang();
    let mut probe = EngineHealth::new(vm, Arc::new(FakePage::default()));
    let begun = Instant::now();
    let reading = probe.measure().await.unwrap();
    assert!(reading.value.contains(r#""vm": "unknown", "health": "unknown""#), "{reading:?}");
    assert_eq!(reading.note.unwrap(), "cannot reach the hypervisor: no answer within 10 s");
    assert_eq!(begun.elapsed(), ASK);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_said_whatever_the_page_says() {
    let lease = LeaseHolding::Lost { detail: "not in sanlock's list".to_owned() };
    let vm = FakeVm::new(VmStatus { lease, ..status_of(VmActivity::Up) });
    let mut probe = EngineHealth::new(vm, Arc::new(FakePage::default()));
    let note = probe.measure().await.unwrap().note.unwrap();
    assert_eq!(note, "the VM does not own its lease and must be destroyed: not in sanlock's list");
}

const GOOD_TEXT: &str = "DB Up!Welcome to Health Status!";

fn options(urls: &[String]) -> PageOptions {
    PageOptions {
        urls: urls.to_vec(),
        expected: GOOD_TEXT.to_owned(),
        timeout: Duration::from_secs(5),
        ca: None,
    }
}

/// Serves `answers` as whole HTTP responses, one connection each, and gives the server's address.
async fn serve(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address.to_string()
}

fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn only_the_right_text_with_200_is_good() {
    let good = format!("<html>{GOOD_TEXT}</html>");
    let address = serve(vec![
        response("200 OK", &good),
        response("500 Internal Server Error", &good),
        response("200 OK", "DB Down!"),
        response("200 OK", &"x".repeat(20_000)),
        "nonsense".to_owned(),
    ])
    .await;
    let page =
        HealthPage::new(&options(&[format!("http://{address}/ovirt-engine/services/health")])).unwrap();
    assert_eq!(page.check().await, Ok(()));
    assert!(page.check().await.unwrap_err().contains("answers 500"));
    let error = page.check().await.unwrap_err();
    assert!(error.contains("says 'DB Down!' instead of 'DB Up!Welcome to Health Status!'"), "{error}");
    assert!(page.check().await.unwrap_err().contains("longer than"));
    assert!(page.check().await.is_err());
}

#[tokio::test]
async fn one_of_two_addresses_is_enough() {
    let old = serve(vec![response("200 OK", GOOD_TEXT)]).await;
    let new = serve(vec![response("404 Not Found", "")]).await;
    let urls = [
        format!("http://{new}/ovirt-engine/services/health"),
        format!("http://{old}/OvirtEngineWeb/HealthStatus"),
    ];
    assert_eq!(HealthPage::new(&options(&urls)).unwrap().check().await, Ok(()));
}

#[tokio::test]
async fn https_is_spoken_and_a_missing_ca_file_is_no_hindrance() {
    let plain = serve(vec![response("200 OK", GOOD_TEXT)]).await;
    let urls = [format!("https://{plain}/ovirt-engine/services/health")];
    let page =
        HealthPage::new(&PageOptions { ca: Some("/nonexistent/ca.pem".into()), ..options(&urls) }).unwrap();
    // The peer answers the TLS greeting in plain text, which must not be taken for a good page.
    assert!(page.check().await.is_err());
}

#[test]
fn addresses_that_cannot_be_asked_are_refused() {
    let error = HealthPage::new(&options(&["ftp://x/".to_owned()])).unwrap_err().to_string();
    assert!(error.contains("'ftp://x/' is no http or https address"), "{error}");
    assert!(HealthPage::new(&options(&[])).unwrap_err().to_string().contains("fqdn"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_that_was_seen_is_not_an_unexpected_end() {
    let vm = FakeVm::new(status_of(VmActivity::WaitForLaunch));
    let mut probe = EngineHealth::new(vm.clone(), Arc::new(FakePage::default()));
    assert!(probe.measure().await.unwrap().value.contains(r#""vm": "up""#));
    vm.set(down(Some(VmExit::StartFailed { detail: "no such disk".to_owned() })));
    let reading = probe.measure().await.unwrap();
    assert!(reading.value.contains(r#""vm": "down","#), "{reading:?}");
    assert!(reading.note.unwrap().contains("no such disk"));
}
