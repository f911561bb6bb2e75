use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn programs() -> Programs {
    Programs {
        server: "/bin/server".to_owned(),
        // A program that is there.
        found: vec![("OUMI_MCP_OUMI", "/bin/sh".to_owned())],
    }
}

/// The text with the server added, and nothing more to add.
fn added(client: Client, before: &str) -> String {
    let after = add_to(client, before, &programs()).unwrap().unwrap();
    assert_eq!(add_to(client, &after, &programs()), Ok(None), "{after}");
    after
}

#[test]
fn a_json_file_keeps_its_comments_order_and_commas() {
    let entry = r#""oumi": {
      "command": "/bin/server",
      "env": {
        "OUMI_MCP_OUMI": "/bin/sh"
      }
    }"#;
    let whole = format!("{{\n  \"mcpServers\": {{\n    {entry}\n  }}\n}}\n");
    for before in ["", "\n", "{}", "{\n}\n", "{\"mcpServers\": {}}"] {
        let after = added(Client::Cursor, before);
        let value: serde_json::Value = serde_json::from_str(&after).unwrap();
        assert_eq!(
            value,
            serde_json::from_str::<serde_json::Value>(&whole).unwrap(),
            "{after}"
        );
    }
    for (before, after) in [
        (
            "// mine\n{\n  \"z\": 1, // last\n  \"mcpServers\": {\n    \"other\": { \"url\": \"https://x\" }\n  },\n  /* a */ \"a\": [1,2]\n}\n",
            "// mine\n{\n  \"z\": 1, // last\n  \"mcpServers\": {\n    \"other\": { \"url\": \"https://x\" },\n    ENTRY\n  },\n  /* a */ \"a\": [1,2]\n}\n",
        ),
        (
            "{\n  \"mcpServers\": {\n    \"other\": {},\n  },\n}\n",
            "{\n  \"mcpServers\": {\n    \"other\": {},\n    ENTRY,\n  },\n}\n",
        ),
    ] {
        let after = after.replace("ENTRY", entry);
        assert_eq!(added(Client::Cursor, before), after);
    }
}

#[test]
fn a_toml_file_keeps_its_comments_and_order() {
    let entry = "[mcp_servers.oumi]\ncommand = \"/bin/server\"\n\n[mcp_servers.oumi.env]\nOUMI_MCP_OUMI = \"/bin/sh\"\n";
    for before in [
        "",
        "# mine\nmodel = \"x\" # why\n\n[mcp_servers.other]\nurl = \"https://x\"\n",
    ] {
        let after = added(Client::Codex, before);
        assert!(after.starts_with(before), "{after}");
        assert_eq!(after[before.len()..].trim_start(), entry);
    }
    let inline = "mcp_servers = { other = { command = \"x\" } } # one line\n[z]\n";
    let after = added(Client::Codex, inline);
    assert!(
        after.contains("other = { command = \"x\" }") && after.contains("# one line\n[z]\n"),
        "{after}"
    );
}

#[test]
fn an_entry_that_is_there_keeps_what_was_set_by_hand() {
    let before = r#"{
  "mcpServers": {
    "oumi": {
      // the lab's
      "command": "uvx", "args": ["oumi-mcp-server"],
      "env": { "OUMI_MCP_CLOUDS": "local", "OUMI_MCP_OUMI": "/bin/cat" },
      "disabled": true
    }
  }
}"#;
    let after = added(Client::Gemini, before);
    assert_eq!(
        after,
        before.replace(
            r#""uvx", "args": ["oumi-mcp-server"]"#,
            r#""/bin/server", "args": []"#
        )
    );
    let gone = before.replace("/bin/cat", "/gone/oumi");
    assert_eq!(
        added(Client::Gemini, &gone),
        after.replace("/bin/cat", "/bin/sh")
    );
    let toml = "[mcp_servers.oumi]\ncommand = \"old\" # mine\nargs = [\"serve\"] # b\nstartup_timeout_sec = 20\n";
    let after = added(Client::Codex, toml);
    assert!(
        after.starts_with(
            "[mcp_servers.oumi]\ncommand = \"/bin/server\" # mine\nargs = [] # b\nstartup_timeout_sec = 20\n"
        ),
        "{after}"
    );
}

#[test]
fn a_file_that_cannot_be_understood_is_refused_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let json: &[&[u8]] = &[
        b"{",
        b"[]",
        b"{\"mcpServers\": []}",
        b"{\"mcpServers\": {\"oumi\": {\"url\": \"https://x\"}}}",
        b"{\"a\": 1 \"b\": 2}",
        b"\xff\xfe{",
    ];
    let toml: &[&[u8]] = &[b"a = ", b"mcp_servers = 1\n", b"[mcp_servers]\noumi = 1\n"];
    for (client, texts) in [(Client::Cursor, json), (Client::Codex, toml)] {
        for text in texts {
            fs::write(&file, text).unwrap();
            let error = merge(client, &file, &programs()).unwrap_err();
            assert!(error.message.contains("was left as it is"), "{error}");
            assert_eq!(fs::read(&file).unwrap(), *text);
            assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        }
    }
}

#[test]
fn a_merge_keeps_a_copy_rights_and_links_and_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (
        folder.path().join("dotfiles.json"),
        folder.path().join("mcp.json"),
    );
    fs::write(&real, "{}").unwrap();
    fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
    symlink("dotfiles.json", &link).unwrap();
    let answer = merge(Client::Vscode, &link, &programs()).unwrap();
    let (_, copy) = answer.split_once("The old file is kept as ").unwrap();
    let copy = copy.trim_end_matches('.');
    assert_eq!(fs::read_to_string(copy).unwrap(), "{}");
    assert!(link.is_symlink());
    assert_eq!(
        fs::metadata(&real).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(
        fs::read_to_string(&real)
            .unwrap()
            .contains("\"type\": \"stdio\"")
    );
    let again = merge(Client::Vscode, &link, &programs()).unwrap();
    assert!(again.starts_with("Nothing to do"), "{again}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 3);

    let new = folder.path().join("a/b/config.toml");
    merge(Client::Codex, &new, &programs()).unwrap();
    assert!(new.exists());
    let dangling = folder.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    assert!(merge(Client::Codex, &dangling, &programs()).is_err());
}

#[test]
fn each_client_has_its_file() {
    let variable = |name: &str| (name == "CODEX_HOME").then(|| PathBuf::from("/codex"));
    let file = |it: &Client| it.file(Path::new("/h"), Path::new("/h/.config"), variable);
    let files: Vec<_> = Client::value_variants().iter().map(file).collect();
    let paths: Vec<_> = files.iter().map(|it| it.to_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "/h/.claude.json",
            "/h/.config/Claude/claude_desktop_config.json",
            "/h/.cursor/mcp.json",
            "/h/.config/Code/User/mcp.json",
            "/codex/config.toml",
            "/h/.gemini/settings.json",
        ]
    );
}

#[test]
fn claude_code_has_a_command_that_adds_the_server() {
    assert_eq!(
        programs().claude_line().unwrap(),
        "claude mcp add oumi -s user -e OUMI_MCP_OUMI=/bin/sh -- /bin/server"
    );
}
