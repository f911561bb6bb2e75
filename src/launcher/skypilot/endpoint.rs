//! SkyPilot's settings on this machine: the API server that `sky` would use, what `sky` would send it of its environment, and
//! what changes a launch beside its plan. The names are those of SkyPilot 0.12 to 0.14.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::settings::config::expand_home;
use crate::settings::data_dir::{if_found, read_bounded};
use crate::settings::env_vars::{OUMI_OVERRIDES, SKY_API};
use crate::text::from_yaml;

const PORT: u16 = 46580;
const MAX_CONFIG: u64 = 1024 * 1024;
/// The variables that name other configurations: one in place of the others, the user's, the project's.
const CONFIGS: [&str; 3] = [
    "SKYPILOT_CONFIG",
    "SKYPILOT_GLOBAL_CONFIG",
    "SKYPILOT_PROJECT_CONFIG",
];
const USER_CONFIG: &str = "~/.sky/config.yaml";
const PROJECT_CONFIG: &str = ".sky.yaml";
const ENDPOINT: &str = "SKYPILOT_API_SERVER_ENDPOINT";
const USER_ID: &str = "SKYPILOT_USER_ID";
const TOKEN: &str = "SKYPILOT_SERVICE_ACCOUNT_TOKEN";
/// Variables of `sky` that are no business of its API server.
const UNSENT: &str = "SKYPILOT_SERVER_ SKYPILOT_DB_CONNECTION_URI SKYPILOT_IN_CLUSTER_CONTEXT_NAME";
/// Variables of the clouds that `sky` sends to the server that it starts itself.
const OF_CLOUDS: &str = "AWS_PROFILE AWS_DEFAULT_PROFILE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN \
    AZURE_CLIENT_ID AZURE_CLIENT_SECRET AZURE_TENANT_ID AZURE_SUBSCRIPTION_ID GOOGLE_APPLICATION_CREDENTIALS KUBECONFIG";
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    /// The variables that each request carries. Some are secrets.
    pub(super) env_vars: Map<String, Value>,
}

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
        let is_off = set(SKY_API).is_some_and(|value| value == "off");
        if is_off || may_be_elsewhere() {
            return None;
        }
        let server = api_server(&expand_home(USER_CONFIG))?;
        if server.service_account_token.is_some() {
            return None;
        }
        let address = match set(ENDPOINT).or(server.endpoint) {
            Some(url) => loopback(&url)?,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
        };
        let env_vars = env_vars(address.port() == PORT)?;
        Some(Self { address, env_vars })
    }
}

/// Where the clusters are that `sky` knows: the API server that it is told of, else the folder of the one on this machine. It lists
/// those of one user.
pub(super) fn place() -> String {
    let place = match named() {
        // Without a user and a password.
        Some(url) => url.rsplit('@').next().unwrap_or_default().to_owned(),
        None => expand_home("~/.sky").display().to_string(),
    };
    match user_id() {
        Some(user) => format!("{place} as user {user}"),
        None => place,
    }
}

/// Tells if `sky` may use an API server that several users share. Does file work.
pub(super) fn may_be_shared() -> bool {
    named().is_some() || may_be_elsewhere()
}

/// Tells if more than the user's configuration may name an API server.
fn may_be_elsewhere() -> bool {
    CONFIGS.iter().chain([&TOKEN]).any(is_set) || Path::new(PROJECT_CONFIG).exists()
}

/// The API server that `sky` is told of.
fn named() -> Option<String> {
    let of_config = || api_server(&expand_home(USER_CONFIG))?.endpoint;
    set(ENDPOINT).or_else(of_config)
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_set(name: &&str) -> bool {
    set(name).is_some()
}

/// Reads the `api_server` of a configuration. `None` where it cannot be read.
fn api_server(config: &Path) -> Option<ApiServer> {
    let text = if_found(read_bounded(config, MAX_CONFIG))
        .ok()?
        .unwrap_or_default();
    let config: Option<Config> = from_yaml(str::from_utf8(&text).ok()?).ok()?;
    Some(config.unwrap_or_default().api_server)
}

/// Reads the address of a server on this machine that speaks plain HTTP.
fn loopback(url: &str) -> Option<SocketAddr> {
    let rest = url.trim_end_matches('/').strip_prefix("http://")?;
    let (host, port) = rest.split_once(':')?;
    let is_loopback = host == "127.0.0.1" || host == "localhost";
    let port = port.parse().ok().filter(|_| is_loopback)?;
    Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// The variables that `sky` sends with each request. `None` where the user is not known.
fn env_vars(is_own_server: bool) -> Option<Map<String, Value>> {
    let is_sent = |name: &str| {
        let is_own = name.starts_with("SKYPILOT_");
        let is_unsent = UNSENT.split(' ').any(|unsent| name.starts_with(unsent));
        (is_own && !is_unsent) || (is_own_server && OF_CLOUDS.split(' ').any(|of| of == name))
    };
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let name = name.into_string().ok().filter(|name| is_sent(name))?;
        Some((name, value.into_string().ok()?.into()))
    };
    let mut sent: Map<String, Value> = env::vars_os().filter_map(text).collect();
    sent.insert(USER_ID.to_owned(), user_id()?.into());
    if !sent.contains_key("SKYPILOT_USER") {
        sent.insert("SKYPILOT_USER".to_owned(), user_name()?.into());
    }
    Some(sent)
}

/// The user of SkyPilot. `None` where `sky` was never run.
pub(super) fn user_id() -> Option<String> {
    let of_file = || {
        let id = read_bounded(&expand_home("~/.sky/user_hash"), 1024).ok()?;
        let id = String::from_utf8(id).ok()?.trim().to_owned();
        let is_id = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (!id.is_empty() && id.chars().all(is_id)).then_some(id)
    };
    set(USER_ID).or_else(of_file)
}

/// The name of the user, as Python finds it.
fn user_name() -> Option<String> {
    ["LOGNAME", "USER"].into_iter().find_map(set).or_else(|| {
        let id = rustix::process::getuid().as_raw().to_string();
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        let is_own = |line: &&str| line.split(':').nth(2) == Some(&id);
        let (name, _) = users.lines().find(is_own)?.split_once(':')?;
        Some(name.to_owned())
    })
}

/// Warns of the settings that SkyPilot reads beside the job config, and of those of Oumi that are not passed on.
pub(super) fn warnings(project: &Path) -> Vec<String> {
    let ignored = OUMI_OVERRIDES.into_iter().filter(is_set).map(|name| {
        format!("{name} is set and is not passed on: the job is launched as this plan shows it")
    });
    let [only, user, of_project] = CONFIGS.map(set);
    let paths = match only {
        Some(only) => vec![only],
        None => vec![
            user.unwrap_or_else(|| USER_CONFIG.to_owned()),
            of_project.unwrap_or_else(|| PROJECT_CONFIG.to_owned()),
        ],
    };
    let paths = paths.iter().map(|path| project.join(expand_home(path)));
    let configs = paths.filter(|path| path.exists()).map(|path| {
        let path = path.display();
        format!("SkyPilot also reads {path}: what it sets is not in this plan, and may change the machines and their price")
    });
    let server = set(ENDPOINT).map(|_| {
        format!("the SkyPilot API server of {ENDPOINT} has settings of its own, which may change what is launched")
    });
    ignored.chain(configs).chain(server).collect()
}

#[cfg(test)]
mod tests;
