//! Registering this host in the engine, so that it manages the host that it runs on. Never fatal: everything here can be
//! done in the engine's own pages later.
//!
//! 1. `http://ENGINE/ovirt-engine/services/pki-resource?resource=ca-certificate&format=X509-PEM-CA`: the engine's
//!    authority, whose fingerprint is shown. From here on nothing is believed that it did not sign.
//! 2. `…?resource=engine-certificate&format=OPENSSH-PUBKEY`: the key by which the engine logs in here.
//! 3. `POST https://ENGINE/ovirt-engine/api/hosts`, then `GET …/hosts/ID` until the host is up.

use std::error::Error;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use ha_config::Secret;
use reqwest::{Certificate, Client, Response};
use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::deploy::made::{ChangedFile, MadeDirectory, MadeFile};
use crate::deploy::services_steps::asked;
use crate::deploy::{DeployError, FirstHost, Job};
use crate::liveliness;
use crate::setup::Report;

/// One answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Until the engine has set a host up.
const PATIENCE: Duration = Duration::from_mins(20);
/// Between two looks at it.
const LOOK: Duration = Duration::from_secs(5);
/// The administrator, as engines with their own users and ones with Keycloak call it.
const ADMINS: [&str; 2] = ["admin@internal", "admin@ovirt@internalsso"];

/// Where the engine is.
struct Api {
    /// For the authority alone.
    plain: String,
    secure: String,
}

#[derive(Debug, Deserialize)]
struct Host {
    id: String,
    #[serde(default)]
    status: String,
}

#[derive(Debug, Deserialize, Default)]
struct Fault {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    detail: String,
}

/// Registers this host, or says why not.
pub(super) fn this_host(job: &mut Job<'_>, first: &FirstHost, password: &Secret) {
    let api = Api {
        plain: format!("http://{}", first.engine.fqdn),
        secure: format!("https://{}", first.engine.fqdn),
    };
    let name = &first.engine.host_name;
    match with(job, first, password, &api) {
        Ok(status) => job.world.report.info(&format!("This host is {name} in the engine: {status}")),
        Err(why) => job.world.report.warning(&format!(
            "this host is not registered in the engine: {why}. Add it there as {name} when you like"
        )),
    }
}

fn with(job: &mut Job<'_>, first: &FirstHost, password: &Secret, api: &Api) -> Result<String, String> {
    let text = |error: DeployError| error.to_string();
    let (client, key) = asked(trust(api, job.world.report)).map_err(text)??;
    authorize(job, &key).map_err(text)?;
    asked(add(&client, api, first, password, job.world.report)).map_err(text)?
}

/// A client that believes the engine's authority alone, and the key by which the engine logs in.
async fn trust(api: &Api, report: &dyn Report) -> Result<(Client, String), String> {
    let resource = "ovirt-engine/services/pki-resource?resource=";
    let client = liveliness::client(DEADLINE).map_err(|error| format!("{error:#}"))?;
    let pem = get(&client, &format!("{}/{resource}ca-certificate&format=X509-PEM-CA", api.plain)).await?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| format!("the certificate of its authority cannot be read: {error}"))?;
    let print: Vec<_> = Sha256::digest(&der).iter().map(|byte| format!("{byte:02X}")).collect();
    report.info(&format!("The engine's authority has the SHA-256 fingerprint {}", print.join(":")));
    let root = Certificate::from_der(&der).map_err(|error| error.to_string())?;
    let client = Client::builder().timeout(DEADLINE).no_proxy().tls_certs_only([root]).build();
    let client = client.map_err(|error| error.to_string())?;
    let key =
        get(&client, &format!("{}/{resource}engine-certificate&format=OPENSSH-PUBKEY", api.secure)).await?;
    let key = key.trim().to_owned();
    if !key.starts_with("ssh-") || key.chars().any(char::is_control) {
        return Err("its SSH key cannot be read".to_owned());
    }
    Ok((client, key))
}

async fn get(client: &Client, url: &str) -> Result<String, String> {
    let answer = client.get(url).send().await.map_err(|error| failed(url, &error))?;
    if !answer.status().is_success() {
        return Err(format!("{url} answered {}", answer.status()));
    }
    answer.text().await.map_err(|error| failed(url, &error))
}

fn failed(url: &str, error: &reqwest::Error) -> String {
    let doubt = doubt(error).map_or_else(String::new, |doubt| format!("; {doubt}"));
    format!("{url} cannot be read: {}{doubt}", liveliness::causes(error))
}

/// What is wrong with the certificate of who answered, for people; `None` when something else is wrong.
fn doubt(error: &reqwest::Error) -> Option<&'static str> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
            return Some(match why {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "its certificate is not valid any more: renew it on the engine (engine-setup), and look at both clocks"
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "its certificate is not valid yet: look at the clocks of this host and of the engine"
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "its certificate is for another name: is this the name that engine-setup was given?"
                }
                _ => {
                    "what answers there is not what the engine's authority vouches for: another machine may answer in \
                     the engine's place, or the engine's web server has a certificate of another authority"
                }
            });
        }
        next = match error.downcast_ref::<std::io::Error>() {
            // What an I/O error is made of is not its source.
            Some(io) => io.get_ref().map(|inner| inner as _),
            None => error.source(),
        };
    }
    None
}

/// Lets the engine log in as root, as it does to set a host up.
fn authorize(job: &mut Job<'_>, key: &str) -> Result<(), DeployError> {
    let path: PathBuf = job.world.paths.resolve("/root/.ssh/authorized_keys");
    let mode = ha_config::atomic::Mode::Private;
    match std::fs::read_to_string(&path) {
        Ok(before) if before.lines().any(|line| line == key) => Ok(()),
        Ok(before) => {
            let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
            let after = format!("{before}{gap}{key}\n");
            let changed = ChangedFile { path: path.clone(), before, after: after.clone() };
            job.make(changed, |_| Ok(ha_config::atomic::write(&path, after.as_bytes(), mode)?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
                job.make(MadeDirectory { path: directory.to_owned() }, |_| {
                    let result = DirBuilder::new().mode(0o700).create(directory);
                    result.map_err(DeployError::io("create the directory", directory))
                })?;
            }
            let content = format!("{key}\n");
            let file = MadeFile { path: path.clone(), content: Some(content.clone()) };
            job.make(file, |_| Ok(ha_config::atomic::write(&path, content.as_bytes(), mode)?))
        }
        Err(error) => Err(DeployError::io("read", &path)(error)),
    }
}

/// Adds the host and waits until it is up. Gives its status.
async fn add(
    client: &Client,
    api: &Api,
    first: &FirstHost,
    password: &Secret,
    report: &dyn Report,
) -> Result<String, String> {
    let url = format!("{}/ovirt-engine/api/hosts", api.secure);
    let body = json!({
        "name": first.engine.host_name,
        "address": first.host.name,
        "ssh": {"authentication_method": "publickey", "port": 22, "user": {"user_name": "root"}},
    });
    let mut refusal = String::new();
    for admin in ADMINS {
        let request = client.post(&url).basic_auth(admin, Some(password.reveal())).body(body.to_string());
        let answer = request.header("Content-Type", "application/json").header("Accept", "application/json");
        let answer = answer.header("Version", "4").send().await.map_err(|error| failed(&url, &error))?;
        if answer.status().as_u16() == 401 {
            "the engine does not take the administrator's password".clone_into(&mut refusal);
            continue;
        }
        let host: Host = parsed(answer, &url).await?;
        report.info("The engine sets this host up");
        return follow(client, &format!("{url}/{}", host.id), admin, password).await;
    }
    Err(refusal)
}

async fn parsed(answer: Response, url: &str) -> Result<Host, String> {
    let status = answer.status();
    let text = answer.text().await.map_err(|error| failed(url, &error))?;
    if !status.is_success() {
        let fault: Fault = serde_json::from_str(&text).unwrap_or_default();
        return Err(format!("the engine answered {status} {} {}", fault.reason, fault.detail)
            .trim()
            .to_owned());
    }
    serde_json::from_str(&text).map_err(|error| format!("the engine's answer cannot be understood: {error}"))
}

async fn follow(client: &Client, url: &str, admin: &str, password: &Secret) -> Result<String, String> {
    let begin = Instant::now();
    let mut last = String::new();
    while begin.elapsed() < PATIENCE {
        let request = client.get(url).basic_auth(admin, Some(password.reveal()));
        let answer = request.header("Accept", "application/json").header("Version", "4").send().await;
        match answer {
            Ok(answer) => last = parsed(answer, url).await?.status,
            // The host's network is set up anew meanwhile.
            Err(error) => last = failed(url, &error),
        }
        match last.as_str() {
            "up" => return Ok(last),
            "install_failed" | "non_operational" | "non_responsive" | "maintenance" | "error" => {
                return Err(format!("the engine could not set it up: its status there is {last}"));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
    Err(format!("the engine is not done within {} min: {last}", PATIENCE.as_secs() / 60))
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
