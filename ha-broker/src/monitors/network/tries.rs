//! The four ways to try the network once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use ha_config::text::bare_host;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use surge_ping::{Client, Config, ICMP, PingIdentifier, PingSequence};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};

use super::Try;

/// TCP port of DNS.
const DNS_PORT: u16 = 53;

/// One ICMP echo to one host.
#[derive(Debug)]
pub struct PingTry {
    host: String,
    sequence: AtomicU16,
}

impl PingTry {
    /// Pings `host`: an IPv4 or IPv6 address, in brackets or not, or a name.
    pub fn new(host: &str) -> Self {
        Self { host: bare_host(host).to_owned(), sequence: AtomicU16::new(0) }
    }
}

/// The first address of a host, from its name or the address itself.
async fn address_of(host: &str, port: u16) -> Result<SocketAddr, String> {
    let mut found = lookup_host((host, port)).await.map_err(|e| format!("cannot resolve '{host}': {e}"))?;
    found.next().ok_or_else(|| format!("'{host}' has no address"))
}

#[async_trait]
impl Try for PingTry {
    async fn attempt(&self) -> Result<(), String> {
        let address = address_of(&self.host, 0).await?;
        let kind = if address.is_ipv6() { ICMP::V6 } else { ICMP::V4 };
        // A new socket for each try: one that saw its network go may never work again.
        let client = Client::new(&Config::builder().kind(kind).build()).map_err(|e| {
            format!("cannot open an ICMP socket: {e}; the broker needs CAP_NET_RAW or a fitting net.ipv4.ping_group_range")
        })?;
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        // A datagram socket has its own identifier from the kernel; a raw one is told ours and others' apart by it.
        let identifier = PingIdentifier(u16::try_from(std::process::id() & 0xffff).unwrap_or(0));
        let mut pinger = client.pinger(address.ip(), identifier).await;
        if let SocketAddr::V6(v6) = address {
            pinger.scope_id(v6.scope_id());
        }
        // The caller's time-out is the one that counts.
        pinger.timeout(std::time::Duration::from_mins(2));
        let reply = pinger.ping(PingSequence(sequence), &[0; 56]).await;
        reply.map(drop).map_err(|e| format!("ping of {}: {e}", self.host))
    }
}

/// One TCP connection.
#[derive(Debug)]
pub struct TcpTry {
    host: String,
    port: u16,
}

impl TcpTry {
    /// Connects to `port` of `host` (as for [`PingTry`]) and hangs up.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: bare_host(host).to_owned(), port }
    }
}

#[async_trait]
impl Try for TcpTry {
    async fn attempt(&self) -> Result<(), String> {
        let connected = TcpStream::connect((self.host.as_str(), self.port)).await;
        connected.map(drop).map_err(|e| format!("TCP connection to {} port {}: {e}", self.host, self.port))
    }
}

/// One DNS query over TCP; the first resolver that answers is enough.
#[derive(Debug)]
pub struct DnsTry {
    resolv_conf: PathBuf,
    port: u16,
}

impl DnsTry {
    /// Asks the resolvers that `resolv_conf` names; it is read anew for each try.
    pub fn new(resolv_conf: PathBuf) -> Self {
        Self { resolv_conf, port: DNS_PORT }
    }

    /// The same at another port; for tests.
    #[cfg(test)]
    pub fn at_port(resolv_conf: PathBuf, port: u16) -> Self {
        Self { resolv_conf, port }
    }
}

/// The resolvers in the text of a resolv.conf; the local one when none is named, as the C library has it.
pub fn resolvers(text: &str) -> Vec<IpAddr> {
    let named: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .collect();
    if named.is_empty() { vec![IpAddr::V4(Ipv4Addr::LOCALHOST)] } else { named }
}

/// Asks one resolver for the root's name servers: it need not know any name to answer.
async fn ask(resolver: SocketAddr) -> Result<(), String> {
    let trouble = |e: &dyn std::fmt::Display| format!("DNS over TCP at {resolver}: {e}");
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::root(), RecordType::NS));
    let packet = query.to_vec().map_err(|e| trouble(&e))?;
    let length = u16::try_from(packet.len()).map_err(|e| trouble(&e))?;

    let mut stream = TcpStream::connect(resolver).await.map_err(|e| trouble(&e))?;
    let message = [&length.to_be_bytes()[..], &packet].concat();
    stream.write_all(&message).await.map_err(|e| trouble(&e))?;
    let length = stream.read_u16().await.map_err(|e| trouble(&e))?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await.map_err(|e| trouble(&e))?;
    let answer = Message::from_vec(&packet).map_err(|e| trouble(&e))?;
    if answer.metadata.id != query.metadata.id {
        return Err(trouble(&"the answer is to another question"));
    }
    Ok(())
}

#[async_trait]
impl Try for DnsTry {
    async fn attempt(&self) -> Result<(), String> {
        let text = std::fs::read_to_string(&self.resolv_conf)
            .map_err(|e| format!("cannot read {}: {e}", self.resolv_conf.display()))?;
        let asked =
            resolvers(&text).into_iter().map(|address| Box::pin(ask(SocketAddr::new(address, self.port))));
        futures_util::future::select_ok(asked).await.map(drop)
    }
}

/// No test: always succeeds.
#[derive(Debug)]
pub struct NoTry;

#[async_trait]
impl Try for NoTry {
    async fn attempt(&self) -> Result<(), String> {
        Ok(())
    }
}
