//! `etcd client-config`: credentials and environment for a stock etcdctl.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use muster_messages::operator::{EtcdClientConfigReply, EtcdClientConfigRequest};
use muster_pki::leaf::KeyPair;
use serde::Serialize;
use zeroize::Zeroizing;

use super::error::EtcdError;
use crate::cli::failure::Failure;
use crate::cli::parse;
use crate::client::{Api, CallKind};
use crate::clock::rfc3339;
use crate::files::{self, FileError};
use crate::output::{Output, Render};

/// Largest `ca.crt` of an earlier run, in bytes.
const MAX_AUTHORITY: usize = 64 << 10;

/// Write short-lived credentials, so that a stock etcdctl works; the key never leaves this machine.
/// Again for the same cluster and directory, it renews them
#[derive(Debug, Args)]
pub(crate) struct ClientConfig {
    /// Output directory [default: a new directory etcd-CLUSTER]
    #[arg(long, value_name = "DIR", value_parser = parse::path)]
    out: Option<PathBuf>,
    /// Lifetime of the certificate
    #[arg(long, value_name = "DURATION", value_parser = parse::duration,
        allow_hyphen_values = true, default_value = "1h")]
    ttl: Duration,
}

impl ClientConfig {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let directory = self.out.unwrap_or_else(|| {
            PathBuf::from(format!("etcd-{}", api.context().description.cluster_name))
        });
        // The path goes into a file that may be sourced from any working directory.
        let directory = std::path::absolute(&directory)
            .map_err(|source| EtcdError::Path { path: directory.display().to_string(), source })?;
        let output_files = OutputFiles::in_directory(&directory);
        let previous = output_files.previous_authority()?;
        let key = KeyPair::generate();
        let message = EtcdClientConfigRequest {
            certificate_request: key.request(),
            ttl_ms: u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX),
        };
        let what = "get a client certificate for etcd";
        let reply = api
            .call(CallKind::Idempotent, what, message, async |client, request| {
                client.etcd_client_config(request).await
            })
            .await?;
        if reply.endpoints.is_empty() || reply.endpoints.iter().any(|e| !is_url(e)) {
            return Err(api.invalid_reply("no usable endpoints of etcd").into());
        }
        if previous.as_ref().is_some_and(|previous| **previous != reply.authority_pem) {
            return Err(EtcdError::OtherCluster { directory }.into());
        }
        files::create_private_directory(&directory)?;
        output_files.write(&reply, &key.to_pem(), previous.is_some())?;
        Ok(out.show(&Written {
            environment: output_files.environment,
            expires: rfc3339(reply.expires_ms),
            endpoints: reply.endpoints,
            directory,
        })?)
    }
}

/// Returns true for a plain HTTPS URL. A shell reads the file, so nothing else may go into it.
fn is_url(endpoint: &str) -> bool {
    endpoint.starts_with("https://")
        && endpoint.bytes().all(|b| b.is_ascii_alphanumeric() || b":/.-_[]".contains(&b))
}

struct OutputFiles {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    environment: PathBuf,
}

impl OutputFiles {
    fn in_directory(directory: &Path) -> Self {
        Self {
            authority: directory.join("ca.crt"),
            certificate: directory.join("client.crt"),
            key: directory.join("client.key"),
            environment: directory.join("etcdctl.env"),
        }
    }

    /// Returns the etcd authority of an earlier run in this directory: for the same cluster the
    /// files are replaced. `None` without any of the files. Fails if they are not all there.
    fn previous_authority(&self) -> Result<Option<Zeroizing<String>>, FileError> {
        let all = [&self.authority, &self.certificate, &self.key, &self.environment];
        let mut present = all.into_iter().filter(|path| path.symlink_metadata().is_ok());
        match (present.clone().count(), present.next()) {
            (0, _) | (_, None) => Ok(None),
            (4, _) => files::read(&self.authority, MAX_AUTHORITY).map(Some),
            (_, Some(taken)) => Err(FileError::Exists(taken.clone())),
        }
    }

    fn write(
        &self,
        reply: &EtcdClientConfigReply,
        key: &Zeroizing<String>,
        renew: bool,
    ) -> Result<(), FileError> {
        let environment = self.environment(&reply.endpoints);
        let all = [
            (self.authority.clone(), reply.authority_pem.as_bytes()),
            (self.certificate.clone(), reply.certificate_pem.as_bytes()),
            (self.key.clone(), key.as_bytes()),
            (self.environment.clone(), environment.as_bytes()),
        ];
        if renew { files::replace_all(&all) } else { files::create_all(&all) }
    }

    fn environment(&self, endpoints: &[String]) -> String {
        let quoted =
            |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let mut text = String::from("# For a shell: `. etcdctl.env`, then etcdctl.\n");
        for (name, value) in [
            ("ETCDCTL_API", "3".to_owned()),
            ("ETCDCTL_ENDPOINTS", format!("'{}'", endpoints.join(","))),
            ("ETCDCTL_CACERT", quoted(&self.authority)),
            ("ETCDCTL_CERT", quoted(&self.certificate)),
            ("ETCDCTL_KEY", quoted(&self.key)),
        ] {
            writeln!(text, "export {name}={value}").ok();
        }
        text
    }
}

#[derive(Debug, Serialize)]
struct Written {
    directory: PathBuf,
    environment: PathBuf,
    expires: Option<String>,
    endpoints: Vec<String>,
}

impl Render for Written {
    fn prose(&self) -> String {
        format!(
            "Wrote a client certificate for etcd, valid until {}, to {}.\n\nTry:\n  . {}\n  etcdctl \
             endpoint health --cluster",
            self.expires.clone().unwrap_or_else(|| "further notice".to_owned()),
            self.directory.display(),
            self.environment.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_can_read_any_path_and_only_addresses_get_in() {
        let output_files = OutputFiles::in_directory(Path::new("/it's here"));
        let text = output_files.environment(&["https://10.0.0.1:2379".to_owned()]);
        let script = format!("{text}\nprintf %s \"$ETCDCTL_CACERT $ETCDCTL_ENDPOINTS\"");
        let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(
            String::from_utf8(said.stdout).unwrap(),
            "/it's here/ca.crt https://10.0.0.1:2379"
        );
        assert!(is_url("https://[::1]:2379"));
        for bad in ["http://x", "https://a'; rm -rf /; '", "https://$(x)", "https://a b"] {
            assert!(!is_url(bad), "{bad}");
        }
    }
}
