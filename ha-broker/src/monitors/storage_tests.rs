use std::sync::atomic::{AtomicU32, Ordering};

use clock::SystemClock;
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::monitors::testing::TokioClock;
use crate::spawner::HostSpawner;
use crate::spawner::testing::TaskSpawner;

fn options() -> MonitorOptions {
    MonitorOptions::from([("sd_uuid".to_owned(), Some("ce880525".to_owned()))])
}

fn probe(read: ReadOnce, clock: Arc<dyn Clock>) -> StorageDomain {
    StorageDomain::new(
        PathBuf::from("/sd/dom_md/metadata"),
        read,
        clock,
        Arc::default(),
        Arc::new(TaskSpawner),
    )
}

#[tokio::test]
async fn a_readable_file_is_true_and_a_missing_one_is_explained() {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = directory.path().join("metadata");
    std::fs::write(&path, "short").unwrap();
    let mut good = StorageDomain::from_options(
        &options(),
        path.clone(),
        Arc::new(SystemClock),
        Arc::default(),
        Arc::new(HostSpawner),
    )
    .unwrap();
    assert_eq!(good.measure().await, Ok(Reading::plain("True")));
    std::fs::remove_file(&path).unwrap();
    let reading = good.measure().await.unwrap();
    assert_eq!(reading.value, "False");
    assert!(reading.note.unwrap().contains("No such file or directory"));
}

#[test]
fn the_domains_id_is_needed() {
    let none = MonitorOptions::new();
    let error = StorageDomain::from_options(
        &none,
        PathBuf::new(),
        Arc::new(SystemClock),
        Arc::default(),
        Arc::new(HostSpawner),
    )
    .err()
    .unwrap();
    assert_eq!(
        error.to_string(),
        "monitor storage-domain: option sd_uuid is missing: give the storage domain's id"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stuck_read_costs_ten_seconds_and_one_thread_until_it_is_back() {
    let stuck = Arc::new(watch::Sender::new(true));
    let started = Arc::new(AtomicU32::new(0));
    let read = || -> ReadOnce {
        let (stuck, started) = (Arc::clone(&stuck), Arc::clone(&started));
        Box::new(move || {
            let mut stuck = stuck.subscribe();
            started.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { stuck.wait_for(|stuck| !stuck).await.map(drop).map_err(io::Error::other) })
        })
    };
    let clock = TokioClock::new();
    let gate = Arc::<Gate>::default();
    let begun = Instant::now();
    for look in 1..=3 {
        // Stopped and started anew each time: still one read at a time.
        let mut probe = StorageDomain { gate: Arc::clone(&gate), ..probe(read(), clock.clone()) };
        let reading = probe.measure().await.unwrap();
        assert_eq!(reading.value, "False");
        let note = format!("a read of /sd/dom_md/metadata has not come back for {} s", 10 * look);
        assert_eq!(reading.note, Some(note));
        assert_eq!(begun.elapsed(), Duration::from_secs(10) * look);
    }

    // Storage is back: the old read returns, and a fresh one decides.
    stuck.send_replace(false);
    let mut probe = StorageDomain { gate, ..probe(read(), clock) };
    assert_eq!(probe.measure().await, Ok(Reading::plain("True")));
    assert_eq!(started.load(Ordering::SeqCst), 2, "one that was stuck, one that decided");
}

#[tokio::test]
async fn an_error_of_storage_is_false_with_its_words() {
    let read: ReadOnce = Box::new(|| Box::pin(async { Err(io::Error::from_raw_os_error(5)) }));
    let reading = probe(read, Arc::new(SystemClock)).measure().await.unwrap();
    assert_eq!(reading.value, "False");
    assert!(reading.note.unwrap().contains("Input/output error"));
}
