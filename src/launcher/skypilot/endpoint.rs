//! The API server that `sky` would use, where it is one on this machine, and what `sky` would send it of its environment.

use std::env;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::settings::data_dir::read_bounded;
use crate::settings::env_vars::SKY_API;

/// SkyPilot's own.
const PORT: u16 = 46580;
/// In bytes.
const MAX_CONFIG: u64 = 1024 * 1024;
/// Variables by which `sky` reads other configurations, or logs in.
const OTHER_WORLDS: [&str; 4] = [
    "SKYPILOT_CONFIG",
    "SKYPILOT_GLOBAL_CONFIG",
    "SKYPILOT_PROJECT_CONFIG",
    "SKYPILOT_SERVICE_ACCOUNT_TOKEN",
];
/// Variables of `sky` that are no business of its API server.
const UNSENT: [&str; 3] = [
    "SKYPILOT_SERVER_",
    "SKYPILOT_DB_CONNECTION_URI",
    "SKYPILOT_IN_CLUSTER_CONTEXT_NAME",
];
/// Variables of the clouds that `sky` sends to the server that it starts itself.
const OF_CLOUDS: [&str; 11] = [
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_SUBSCRIPTION_ID",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "KUBECONFIG",
];

/// An API server on this machine.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    /// The variables that each request carries. Some are secrets.
    pub(super) env_vars: Map<String, Value>,
}

/// The part of SkyPilot's configuration that is read.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    api_server: ApiServer,
}

#[derive(Default, Deserialize)]
struct ApiServer {
    endpoint: Option<String>,
    service_account_token: Option<serde::de::IgnoredAny>,
}

impl Endpoint {
    /// The server that `sky` would use. `None` where that may be another than one on this machine without a login, and where
    /// `sky` was never run.
    pub(super) fn find() -> Option<Self> {
        let is_off = env::var(SKY_API).is_ok_and(|value| value == "off");
        let is_other = OTHER_WORLDS.iter().any(|name| env::var_os(name).is_some());
        if is_off || is_other || Path::new(".sky.yaml").exists() {
            return None;
        }
        let folder = dirs::home_dir()?.join(".sky");
        let api_server = api_server(&folder.join("config.yaml"))?;
        if api_server.service_account_token.is_some() {
            return None;
        }
        let named = env::var("SKYPILOT_API_SERVER_ENDPOINT").ok();
        let address = match named.or(api_server.endpoint) {
            Some(url) => loopback(&url)?,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
        };
        let env_vars = env_vars(&folder, address.port() == PORT)?;
        Some(Self { address, env_vars })
    }
}

/// Reads the `api_server` of a configuration. `None` where it cannot be read.
fn api_server(config: &Path) -> Option<ApiServer> {
    match read_bounded(config, MAX_CONFIG) {
        Err(error) if error.kind() == ErrorKind::NotFound => Some(ApiServer::default()),
        Ok(text) if text.trim_ascii().is_empty() => Some(ApiServer::default()),
        text => {
            let config: Config = serde_saphyr::from_slice(&text.ok()?).ok()?;
            Some(config.api_server)
        }
    }
}

/// Reads the address of a server on this machine that speaks plain HTTP.
fn loopback(url: &str) -> Option<SocketAddr> {
    let rest = url.trim_end_matches('/').strip_prefix("http://")?;
    let (host, port) = rest.split_once(':')?;
    let is_loopback = host == "127.0.0.1" || host == "localhost";
    let port = port.parse().ok().filter(|_| is_loopback)?;
    Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// The variables that `sky` sends with each request. `None` where the user is not known to SkyPilot.
fn env_vars(folder: &Path, is_own_server: bool) -> Option<Map<String, Value>> {
    let is_sent = |name: &str| {
        let is_own = name.starts_with("SKYPILOT_");
        let is_unsent = UNSENT.iter().any(|unsent| name.starts_with(unsent));
        (is_own && !is_unsent) || (is_own_server && OF_CLOUDS.contains(&name))
    };
    let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let sent = env::vars_os()
        .filter_map(pair)
        .filter(|(name, _)| is_sent(name));
    let mut sent: Map<String, Value> = sent.map(|(name, value)| (name, value.into())).collect();
    if !sent.contains_key("SKYPILOT_USER_ID") {
        let id = read_bounded(&folder.join("user_hash"), 1024).ok()?;
        let id = String::from_utf8(id).ok()?.trim().to_owned();
        let is_id = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if id.is_empty() || !id.chars().all(is_id) {
            return None;
        }
        sent.insert("SKYPILOT_USER_ID".to_owned(), id.into());
    }
    if !sent.contains_key("SKYPILOT_USER") {
        sent.insert("SKYPILOT_USER".to_owned(), user_name()?.into());
    }
    Some(sent)
}

/// The name of the user, as Python finds it.
fn user_name() -> Option<String> {
    let named = ["LOGNAME", "USER", "LNAME", "USERNAME"].map(|name| env::var(name).ok());
    let mut named = named.into_iter().flatten();
    named.find(|name| !name.is_empty()).or_else(|| {
        let users = read_bounded(Path::new("/etc/passwd"), MAX_CONFIG).ok()?;
        let id = rustix::process::getuid().as_raw().to_string();
        let users = String::from_utf8_lossy(&users).into_owned();
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1) == Some(&id)).then(|| name.to_owned())
        })
    })
}

#[cfg(test)]
mod tests;
