//! Calls one verb of a VDSM and prints its result:
//!
//! ```text
//! cargo run -p vdsm-client --example call -- Host.getStorageRepoStats '{"domains": []}'
//! cargo run -p vdsm-client --example call -- --events
//! ```
//!
//! It runs on a host of oVirt, as root: the certificates are VDSM's own. `VDSM=host:port` calls another one, and
//! `VDSM_PLAIN=1` does without TLS.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use vdsm_client::{Client, Settings, TlsFiles};

const USAGE: &str = "usage: call VERB [PARAMETERS AS JSON OBJECT] | call --events";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address = std::env::var("VDSM").unwrap_or_else(|_| "localhost:54321".to_owned());
    let (host, port) = address.rsplit_once(':').context("VDSM must be host:port")?;
    let port = port.parse().with_context(|| format!("VDSM has {port:?} where a port was expected"))?;
    let tls = std::env::var_os("VDSM_PLAIN").is_none().then(|| TlsFiles {
        ca: "/etc/pki/vdsm/certs/cacert.pem".into(),
        cert: "/etc/pki/vdsm/certs/vdsmcert.pem".into(),
        key: "/etc/pki/vdsm/keys/vdsmkey.pem".into(),
    });
    let vdsm = Client::new(Settings::new(host.trim_matches(['[', ']']), port, tls));

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--events"] => {
            let mut events = vdsm.events();
            // A receiver that lags is told so, and goes on.
            loop {
                match events.recv().await {
                    Ok(event) => println!("{} {}", event.method, event.params),
                    Err(lost) => eprintln!("{lost}"),
                }
            }
        }
        [verb] if !verb.starts_with('-') => call(&vdsm, verb, json!({})).await,
        [verb, params] => {
            let params = serde_json::from_str(params).context("the parameters are no JSON")?;
            call(&vdsm, verb, params).await
        }
        _ => bail!(USAGE),
    }
}

async fn call(vdsm: &Client, verb: &str, params: Value) -> anyhow::Result<()> {
    if !params.is_object() {
        bail!("the parameters must be an object, by name: {USAGE}");
    }
    let result = vdsm.call(verb, params, Duration::from_secs(30)).await?;
    println!("{result:#}");
    Ok(())
}
