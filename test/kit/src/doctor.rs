//! What the machine must have before any long work begins. Each lack is one sentence that says what to install.

use std::process::{Command, Stdio};

/// The prerequisites that are missing, each as one sentence.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Missing(pub(crate) Vec<String>);

struct Tool {
    program: &'static str,
    probe: &'static [&'static str],
    install: &'static str,
}

const RUN_TOOLS: &[Tool] = &[
    Tool {
        program: "unshare",
        probe: &["--version"],
        install: "install the package util-linux (Debian: apt-get install util-linux)",
    },
    Tool {
        program: "nsenter",
        probe: &["--version"],
        install: "install the package util-linux (Debian: apt-get install util-linux)",
    },
    Tool {
        program: "ip",
        probe: &["-V"],
        install: "install the package iproute2 (Debian: apt-get install iproute2)",
    },
    Tool {
        program: "python3",
        probe: &["-c", "import sys; sys.exit(sys.version_info < (3, 10))"],
        install: "install Python 3.10 or newer (Debian: apt-get install python3 python3-pip)",
    },
    Tool {
        program: "node",
        probe: &[
            "-e",
            "process.exit(process.versions.node.split('.')[0] < 18 ? 1 : 0)",
        ],
        install: "install Node.js 18 or newer (Debian: apt-get install nodejs npm)",
    },
];

const BUILD_TOOLS: &[Tool] = &[
    Tool {
        program: "go",
        probe: &["version"],
        install: "install Go 1.26 or newer from https://go.dev/dl",
    },
    Tool {
        program: "npm",
        probe: &["--version"],
        install: "install npm, which comes with Node.js (Debian: apt-get install npm)",
    },
    Tool {
        program: "python3",
        probe: &["-m", "pip", "--version"],
        install: "install pip for python3 (Debian: apt-get install python3-pip)",
    },
];

/// Checks what running needs and, when something must be built first, what building needs.
///
/// # Errors
/// Every lack at once.
pub(crate) fn check(must_build: bool) -> Result<(), Missing> {
    let build = if must_build { BUILD_TOOLS } else { &[] };
    let mut missing: Vec<String> = RUN_TOOLS.iter().chain(build).filter_map(lack).collect();
    missing.dedup();
    if !missing.iter().any(|line| line.contains("unshare")) {
        missing.extend(namespaces());
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Missing(missing))
    }
}

fn lack(tool: &Tool) -> Option<String> {
    if succeeds(Command::new(tool.program).args(tool.probe)) {
        return None;
    }
    let call = std::iter::once(tool.program)
        .chain(tool.probe.iter().copied())
        .take(3);
    let call: Vec<&str> = call.filter(|word| !word.contains(' ')).collect();
    Some(format!(
        "{} is missing or too old: {}",
        call.join(" "),
        tool.install
    ))
}

/// The sandbox's own calls, tried for a moment: namespaces and a virtual network pair.
fn namespaces() -> Option<String> {
    let mut sandbox = Command::new("unshare");
    sandbox.args(crate::sandbox::UNSHARE).args(["sh", "-c"]);
    if !succeeds(sandbox.arg("true")) {
        return Some(
            "user namespaces are off: enable them with `sysctl -w kernel.unprivileged_userns_clone=1 \
             user.max_user_namespaces=15000` (Ubuntu 24.04 also: kernel.apparmor_restrict_unprivileged_userns=0), \
             or run the container with --security-opt seccomp=unconfined"
                .to_owned(),
        );
    }
    let mut veth = Command::new("unshare");
    veth.args(crate::sandbox::UNSHARE).args([
        "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "eth0",
    ]);
    (!succeeds(&mut veth)).then(|| {
        "the kernel has no virtual network pairs: load them with `modprobe veth`, they join pods to the node"
            .to_owned()
    })
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_one_sentence_that_says_what_to_install() {
        let tool = Tool {
            program: "no-such-tool-here",
            probe: &["--version"],
            install: "install it",
        };
        assert_eq!(
            lack(&tool).unwrap(),
            "no-such-tool-here --version is missing or too old: install it"
        );
    }

    /// The script that looks before there is a kit, with programs from `path` and an empty cache or none.
    fn preflight(path: &str, cache: &str) -> (bool, String) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/preflight.sh");
        let mut command = Command::new("/bin/sh");
        let output = command
            .arg(script)
            .env("PATH", path)
            .env("MCPGW_CACHE", cache)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text)
    }

    #[test]
    fn before_anything_is_compiled_one_sentence_says_what_to_install() {
        let (good, said) = preflight("/nowhere", "/nowhere");
        assert!(
            !good && said.starts_with("missing: go npm node python3 unshare ip; install"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        let (good, said) = preflight("/nowhere", "/");
        assert!(
            !good && said.starts_with("missing: node python3 unshare ip;"),
            "built already: {said}"
        );
    }

    #[test]
    fn a_tool_that_is_there_is_no_lack() {
        let tool = Tool {
            program: "sh",
            probe: &["-c", "true"],
            install: "",
        };
        assert!(lack(&tool).is_none());
    }
}
