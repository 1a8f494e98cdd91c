use std::sync::atomic::{AtomicU32, Ordering};

use hickory_proto::op::{Message, MessageType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;

/// Succeeds, fails or hangs, in the order of its letters: `y`, `n`, `h`.
struct Script(&'static str, AtomicU32);

impl Script {
    fn new(letters: &'static str) -> Arc<Self> {
        Arc::new(Self(letters, AtomicU32::new(0)))
    }
}

#[async_trait]
impl Try for Script {
    async fn attempt(&self) -> Result<(), String> {
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        match self.0.as_bytes()[number as usize] {
            b'y' => Ok(()),
            b'n' => Err("refused".to_owned()),
            _ => std::future::pending().await,
        }
    }
}

fn options(given: &[(&str, &str)]) -> MonitorOptions {
    given.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect()
}

fn network(letters: &'static str, verdict: Verdict) -> Network {
    let schedule = Schedule::read(&Options::new("network", &MonitorOptions::new())).unwrap();
    Network { tries: Script::new(letters), schedule, verdict }
}

#[tokio::test(start_paused = true)]
async fn five_tries_give_a_share_in_pythons_spelling() {
    for (letters, share) in [("yyyyy", "1.0"), ("ynyny", "0.6"), ("nnnnn", "0.0"), ("yyyyn", "0.8")] {
        let begun = Instant::now();
        let reading = network(letters, Verdict::Share).measure().await.unwrap();
        assert_eq!(reading.value, share);
        assert_eq!(reading.note.is_none(), share == "1.0");
        assert_eq!(begun.elapsed(), Duration::from_secs(2), "four pauses of half a second");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_try_costs_five_seconds_and_says_so() {
    let begun = Instant::now();
    let mut network = network("hyyyh", Verdict::Share);
    let reading = network.measure().await.unwrap();
    assert_eq!(reading.value, "0.6");
    assert_eq!(
        reading.note.unwrap(),
        "3 of 5 network tries succeeded; the last failure: no answer within 5 s"
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(12));
    assert!(network.limit() > Duration::from_secs(27));
}

#[tokio::test(start_paused = true)]
async fn the_founding_ping_is_content_with_one_answer() {
    let begun = Instant::now();
    assert_eq!(network("yn", Verdict::Any).measure().await.unwrap(), Reading::plain("True"));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let reading = network("nnnny", Verdict::Any).measure().await.unwrap();
    assert_eq!(reading, Reading::plain("True"));
    let reading = network("nnnnn", Verdict::Any).measure().await.unwrap();
    assert_eq!((reading.value.as_str(), reading.note.as_deref()), ("False", Some("refused")));
}

#[test]
fn options_as_recorded_are_taken_and_wrong_ones_named() {
    let recorded = options(&[("addr", "127.0.0.1"), ("network_test", "ping"), ("tcp_t_address", "")]);
    assert!(Network::from_options(&recorded, PathBuf::new()).is_ok());
    let refused = |given: &[(&str, &str)]| {
        Network::from_options(&options(given), PathBuf::new()).err().unwrap().to_string()
    };
    assert_eq!(
        refused(&[("network_test", "arp")]),
        "monitor network: option network_test is 'arp': give ping, dns, tcp or none"
    );
    assert!(refused(&[]).contains("option addr is missing"));
    assert!(refused(&[("network_test", "tcp"), ("tcp_t_address", "x")]).contains("tcp_t_port is missing"));
    let error = refused(&[("network_test", "tcp"), ("tcp_t_address", "x"), ("tcp_t_port", "70000")]);
    assert!(error.contains("option tcp_t_port is '70000': give a number from 1 to 65535"), "{error}");
}

#[tokio::test]
async fn tcp_connects_and_a_closed_port_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(TcpTry::new("127.0.0.1", port).attempt().await, Ok(()));
    drop(listener);
    let error = TcpTry::new("127.0.0.1", port).attempt().await.unwrap_err();
    assert!(error.contains(&format!("127.0.0.1 port {port}")), "{error}");
}

#[tokio::test]
async fn ipv6_addresses_are_reached_with_and_without_brackets() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["::1", "[::1]"] {
        assert_eq!(TcpTry::new(host, port).attempt().await, Ok(()), "{host}");
        // Whether this machine lets us ping or not, the address is understood.
        if let Err(error) = PingTry::new(host).attempt().await {
            assert!(error.contains("ICMP socket"), "{host}: {error}");
        }
    }
    drop(listener);
    let error = TcpTry::new("[::1]", port).attempt().await.unwrap_err();
    assert!(error.contains(&format!("::1 port {port}")), "{error}");
}

#[test]
fn resolvers_are_read_as_the_c_library_reads_them() {
    let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # two\nnameserver x\n";
    let found: Vec<String> = tries::resolvers(text).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(tries::resolvers("")[0].to_string(), "127.0.0.1");
}

#[tokio::test]
async fn dns_over_tcp_wants_an_answer_to_its_own_question() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        for wrong in [false, true] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut packet = vec![0; usize::from(length)];
            stream.read_exact(&mut packet).await.unwrap();
            let mut message = Message::from_vec(&packet).unwrap();
            assert_eq!(message.queries.len(), 1);
            message.metadata.message_type = MessageType::Response;
            message.metadata.id ^= u16::from(wrong);
            let answer = message.to_vec().unwrap();
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
    let dns = DnsTry::at_port(path, port);
    assert_eq!(dns.attempt().await, Ok(()));
    assert!(dns.attempt().await.unwrap_err().contains("another question"));
    server.await.unwrap();
    assert!(dns.attempt().await.is_err(), "nobody listens any more");
}
