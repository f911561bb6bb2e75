//! The folder of the user's project, where the client declares it as a root.
#![expect(
    deprecated,
    reason = "rmcp deprecates roots with 2026-07-28; every version before has them"
)]

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::Context;
use super::tasks::version_has_tasks;

const ROOTS_WAIT: Duration = Duration::from_secs(5);

/// Returns the first root that is a folder of this machine.
pub(super) async fn project_folder(context: &Context) -> Option<String> {
    context.client_capabilities()?.roots?;
    // 2026-07-28 has no requests of a server.
    if version_has_tasks(context) {
        return None;
    }
    let listed = tokio::time::timeout(ROOTS_WAIT, context.peer.list_roots());
    let listed = listed.await.ok()?.ok()?;
    listed.roots.iter().find_map(|root| folder(&root.uri))
}

/// Reads the path of a `file:` URI (RFC 8089).
fn folder(uri: &str) -> Option<String> {
    let path = uri.strip_prefix("file://")?;
    let path = path.strip_prefix("localhost").unwrap_or(path);
    let path = percent_decode_str(path).decode_utf8().ok()?;
    path.starts_with('/').then(|| path.into_owned())
}

#[cfg(test)]
mod tests {
    use super::folder;

    #[test]
    fn roots_are_folders_of_this_machine() {
        for (uri, path) in [
            ("file:///home/me/my%20project", Some("/home/me/my project")),
            ("file://localhost/p", Some("/p")),
            ("file://elsewhere/p", None),
            ("https://example.org/p", None),
            ("/p", None),
        ] {
            assert_eq!(folder(uri).as_deref(), path, "{uri}");
        }
    }
}
