//! `--check-liveliness`: asks the engine's own page whether it is well, as the health monitor does.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context, Result};
use ha_config::ha_toml::LivelinessTable;
use ha_config::{HaToml, HostedEngineConf, Paths};
use metadata_format::text::excerpt;

use crate::terminal::{Exit, Terminal};

/// Bytes of a page that are looked at; a health page has a few dozen.
const PAGE_LIMIT: usize = 64 * 1024;

/// Exit 0 when the engine is up, 1 when not, 2 when it is not known where to ask.
pub async fn check(paths: &Paths, terminal: &mut Terminal) -> Result<Exit> {
    let conf = match HostedEngineConf::load(paths) {
        Ok(conf) => conf,
        Err(error) => {
            terminal.complain(format!("Error reading the configuration file: {error}"));
            return Ok(Exit::NOT_CONFIGURED);
        }
    };
    let Some(fqdn) = conf.file().get("fqdn") else {
        terminal.complain("Incomplete configuration, missing FQDN of the hosted engine VM");
        return Ok(Exit::NOT_CONFIGURED);
    };
    let table = HaToml::load(paths)?.liveliness;
    if ask(&table, fqdn, terminal).await? {
        terminal.say("Hosted Engine is up!");
        Ok(Exit::OK)
    } else {
        terminal.say("Hosted Engine is not up!");
        Ok(Exit::FAILED)
    }
}

async fn ask(table: &LivelinessTable, fqdn: &str, terminal: &mut Terminal) -> Result<bool> {
    match look(&client(table.timeout)?, table, fqdn).await {
        Ok(()) => Ok(true),
        Err(reasons) => {
            for reason in reasons {
                terminal.complain(reason);
            }
            Ok(false)
        }
    }
}

/// A client that asks the engine directly, whatever proxy the operator's shell is set to.
pub(crate) fn client(timeout: Duration) -> Result<reqwest::Client> {
    // Already installed is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(timeout).no_proxy().build().context("Cannot set up an HTTP client")
}

/// Whether one of the engine's pages is good; else why each is not.
pub(crate) async fn look(
    client: &reqwest::Client,
    table: &LivelinessTable,
    fqdn: &str,
) -> Result<(), Vec<String>> {
    let mut reasons = Vec::new();
    for url in table.urls_for(fqdn) {
        reasons.push(match page(client, &url).await {
            Ok((200, body)) if String::from_utf8_lossy(&body).contains(&table.expected) => return Ok(()),
            Ok((code, body)) => format!("{url} answered {code}: {}", excerpt(body.trim_ascii(), 80)),
            Err(error) => format!("{url} cannot be read: {}", causes(&error)),
        });
    }
    Err(reasons)
}

async fn page(client: &reqwest::Client, url: &str) -> Result<(u16, Vec<u8>), reqwest::Error> {
    let mut response = client.get(url).send().await?;
    let code = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() >= PAGE_LIMIT {
            break;
        }
    }
    Ok((code, body))
}

/// An error's innermost cause: the outer ones only repeat the address.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut inner: &dyn Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Serves one page once on loopback; gives its address.
    async fn serve(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    async fn check_with(fqdn: &str, pages: &str) -> (Exit, crate::terminal::Record) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.hosted_engine_conf_dir()).unwrap();
        std::fs::create_dir_all(paths.ha_conf_dir()).unwrap();
        std::fs::write(paths.hosted_engine_conf(), format!("fqdn={fqdn}\nvmid=1\n")).unwrap();
        std::fs::write(paths.ha_toml(), format!("[liveliness]\nurls = [{pages}]\ntimeout = 5\n")).unwrap();
        let mut terminal = Terminal::recording();
        let exit = check(&paths, &mut terminal).await.unwrap();
        (exit, terminal.recorded())
    }

    #[tokio::test]
    async fn a_good_page_is_up() {
        let address =
            serve("HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\nDB Up!Welcome to Health Status!").await;
        let (exit, record) = check_with(&address, r#""http://{fqdn}/ovirt-engine/services/health""#).await;
        assert_eq!((exit, record.out.as_str()), (Exit::OK, "Hosted Engine is up!\n"), "{}", record.err);
    }

    #[tokio::test]
    async fn a_bad_page_is_down_and_shown() {
        let address = serve("HTTP/1.1 500 Oops\r\nContent-Length: 7\r\n\r\nDB Down").await;
        let (exit, record) = check_with(&address, r#""http://{fqdn}/""#).await;
        assert_eq!((exit, record.out.as_str()), (Exit::FAILED, "Hosted Engine is not up!\n"));
        assert!(record.err.contains("answered 500: DB Down"), "{}", record.err);
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_down() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let (exit, record) = check_with(&address, r#""http://{fqdn}/""#).await;
        assert_eq!(exit, Exit::FAILED);
        assert!(record.err.contains("refused"), "{}", record.err);
    }

    #[tokio::test]
    async fn without_a_configuration_the_exit_code_is_2() {
        let root = tempfile::tempdir().unwrap();
        let mut terminal = Terminal::recording();
        assert_eq!(check(&Paths::new(root.path()), &mut terminal).await.unwrap(), Exit::NOT_CONFIGURED);
    }
}
