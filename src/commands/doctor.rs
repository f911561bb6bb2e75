//! `doctor`: what a user runs first, and pastes into a bug report. It changes no job. The checks run side by side.

use std::error::Error;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use self::Outcome::{Failure, Warning};
use super::jobs::Format;
use super::setup::own_path;
use super::text::for_person;
use super::{CommandResult, note, print, until_interrupted};
use crate::error::{JobError, Result};
use crate::launcher::cloud::idle_end;
use crate::launcher::skypilot::asks_api_server;
use crate::parse::sky;
use crate::process::runner::{Cli, CliCall, Output};
use crate::process::{find, on_file_threads};
use crate::redact::Redactor;
use crate::serve::wire;
use crate::service::requests::{ListRequest, StatusFilter};
use crate::service::{JobService, setting_problems};
use crate::settings::data_dir::DataDir;
use crate::text::{clean_controls, join_names};

/// The timeout of a program: the first run of `sky` starts SkyPilot's API server.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    /// Something does not work that need not matter.
    Warning,
    /// Jobs cannot be run, or not as they were meant to.
    Failure,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    outcome: Outcome,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    /// Reports what was found, or with `outcome` why it was not. Hides what looks like a secret: programs print what they like.
    fn new(name: &'static str, found: Result<String>, outcome: Outcome) -> Self {
        let (outcome, message, advice) = match found {
            Ok(found) => (Outcome::Ok, found, None),
            Err(error) => (outcome, error.message, error.hint),
        };
        let clean = |text: String| {
            clean_controls(&Redactor::default().redact(&for_person(&text))).into_owned()
        };
        Self {
            name,
            outcome,
            message: clean(message),
            advice: advice.map(clean),
        }
    }
}

/// Checks everything and prints the report. Returns 1 where something failed. `program` is this program.
pub fn run(output: Format, program: &Path) -> CommandResult {
    if io::stderr().is_terminal() {
        note("Checking everything, which takes up to a minute …");
    }
    // With slots of its own, so that no check waits for another's.
    let (wired, cli) = (wire(program), Cli::default());
    let checking = on_file_threads(Box::pin(async move { checks(wired, &cli).await }));
    until_interrupted(async {
        let checks = checking.await;
        let failed = checks.iter().any(|check| check.outcome == Failure);
        print(&if output.json {
            let version = env!("CARGO_PKG_VERSION");
            let report = json!({ "version": version, "ok": !failed, "checks": checks });
            serde_json::to_string_pretty(&report)?
        } else {
            report(&checks)
        })?;
        Ok(ExitCode::from(u8::from(failed)))
    })
}

fn report(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let outcome = format!("{:?}", check.outcome).to_lowercase();
        text += &format!("{outcome:9}{:10}{}\n", check.name, check.message);
        if let Some(advice) = &check.advice {
            text += &format!("{:19}-> {advice}\n", "");
        }
    }
    let wrong = checks.iter().filter(|check| check.outcome != Outcome::Ok);
    text + &match wrong.count() {
        0 => "\nAll is well.".to_owned(),
        count => format!("\nNeed attention: {count}."),
    }
}

/// Runs all checks, and returns them in the order of the report. `wired`: the service, or why no server would start.
async fn checks(wired: Result<JobService, Box<dyn Error + Send + Sync>>, cli: &Cli) -> Vec<Check> {
    let problems = setting_problems();
    let jobs = async {
        match wired {
            Ok(service) => jobs(&service, &problems).await,
            Err(error) => {
                let error = JobError::failed(error);
                let error = error.with_hint("no server starts until that is corrected");
                vec![Check::new("settings", Err(error), Failure)]
            }
        }
    };
    let (oumi, sky, jobs) = tokio::join!(oumi(cli), skypilot(cli), jobs);
    let (version, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    let own = own_path().map(|path| format!("{}, version {version}, {os}", path.display()));
    let settings = problems.iter().map(JobError::failed);
    let settings = settings.map(|it| Check::new("settings", Err(it), Warning));
    let mut checks = vec![Check::new("server", own, Failure)];
    checks.extend(settings.chain(oumi).chain(sky));
    let data = DataDir::from_environment().and_then(|data_dir| {
        data_dir.check()?;
        Ok(data_dir.registry().display().to_string())
    });
    checks.push(Check::new("data", data, Failure));
    checks.extend(jobs);
    checks
}

/// Checks `oumi`, here and as a client that was started from the desktop would find it.
async fn oumi(cli: &Cli) -> Vec<Check> {
    let program = match find::find_any_oumi() {
        Ok(program) => program,
        Err(error) => return vec![Check::new("oumi", Err(error), Failure)],
    };
    // It has no `--version`.
    let ran = described(cli, &program, "oumi", &["--help"]).await;
    let other = find::find_oumi_from_desktop();
    let found = other.as_ref().map(|other| other.display().to_string());
    let found = found.unwrap_or_else(|| "no `oumi`".to_owned());
    let from_desktop = format!("a client started from the desktop finds {found}");
    let desktop = if other == Some(program) {
        Ok(from_desktop)
    } else {
        let problem = format!("{from_desktop} where a project has no .venv");
        let hint = "`oumi-mcp-server setup` names this one in the client's settings";
        Err(JobError::failed(problem).with_hint(hint))
    };
    vec![
        Check::new("oumi", ran.map(|(_, found)| found), Failure),
        Check::new("desktop", desktop, Warning),
    ]
}

/// Checks `sky`, its API server, the clouds that it may use, and the clusters that are up.
async fn skypilot(cli: &Cli) -> Vec<Check> {
    let program = match find::find_sky() {
        Ok(program) => program,
        Err(error) => {
            let error = error.context("clouds cannot be used");
            return vec![Check::new("sky", Err(error), Warning)];
        }
    };
    let (info, enabled, clusters) = tokio::join!(
        described(cli, &program, "skypilot", &["api", "info", "-o", "json"]),
        output_of(cli, &program, &["check", "-o", "json"]),
        output_of(cli, &program, &["status", "-o", "json"]),
    );
    let clusters = clusters.and_then(|output| clusters_up(&output.stdout));
    let clusters = clusters
        .map_err(|error| error.context("which clusters are up, and may cost money, is not known"));
    let clouds = enabled.and_then(|output| clouds(&output.stdout));
    let server = info.as_ref().map(|(info, _)| api_server(&info.stdout));
    let server = server.ok();
    let mut checks = vec![Check::new("sky", info.map(|(_, found)| found), Warning)];
    checks.extend(server.map(|server| Check::new("sky api", server, Warning)));
    checks.push(Check::new("clouds", clouds, Warning));
    checks.push(Check::new("clusters", clusters, Warning));
    checks
}

/// Checks SkyPilot's API server by what `sky` has printed of it. That run has written the user's id, which asking it needs.
fn api_server(info: &str) -> Result<String> {
    let info = sky::api_info(info).unwrap_or_default();
    let server = &info["server"];
    let Some(status) = server["status"].as_str() else {
        return Ok("none is running; `sky` starts one when needed".to_owned());
    };
    let own = info["client"]["version"].as_str().unwrap_or_default();
    let [url, version] = ["url", "version"].map(|field| server[field].as_str().unwrap_or("?"));
    let asked = match asks_api_server() {
        true => "this server asks it directly",
        false => "each query runs `sky`, which takes seconds: a setting or a login is in the way",
    };
    let found = format!("{url}, version {version}, is {status}; {asked}");
    if status == "healthy" && version == own {
        return Ok(found);
    }
    let problem = JobError::failed(format!("{found}; `sky` has version {own}"));
    Err(problem.with_hint("while no launch is under way: `sky api stop; sky api start`"))
}

fn clouds(printed: &str) -> Result<String> {
    let clouds = sky::enabled_clouds(printed)?;
    if clouds.is_empty() {
        let error = JobError::failed("no cloud is enabled in SkyPilot");
        return Err(error.with_hint("`sky check` says what each cloud needs"));
    }
    let clouds = join_names(clouds.iter().map(String::as_str));
    Ok(format!("enabled in SkyPilot: {clouds}"))
}

fn clusters_up(status: &str) -> Result<String> {
    let list = sky::clusters(status)?;
    let up = list.iter().filter(|one| one.status != "STOPPED");
    let up = up.map(|cluster| {
        let (name, status) = (&cluster.name, &cluster.status);
        format!("{name} ({status}, {})", idle_end(cluster))
    });
    let up: Vec<String> = up.collect();
    Ok(match up.len() {
        0 => "none is up".to_owned(),
        count => format!("{count} up, and may cost money: {}", up.join("; ")),
    })
}

/// Counts the jobs, and repeats the warnings of `list_jobs` but the `known` ones: it names what runs without a record too.
async fn jobs(service: &JobService, known: &[String]) -> Vec<Check> {
    let request = ListRequest {
        status: StatusFilter::All,
        limit: u32::MAX,
    };
    let answer = service.list(request).await;
    let live = answer.jobs.iter().filter(|job| !job.is_done);
    let live: Vec<&str> = live.map(|job| job.job_id.as_str()).collect();
    let over = answer.jobs.len() - live.len();
    let message = match (answer.error, live.len()) {
        (Some(error), _) => Err(JobError::failed(error)),
        (None, 0) => Ok(format!("none is running, {over} have ended")),
        (None, count) => Ok(format!(
            "{count} not ended ({}), {over} ended",
            live.join(", ")
        )),
    };
    let warnings = answer.warnings.iter().filter(|text| !known.contains(text));
    let mut checks = vec![Check::new("jobs", message, Failure)];
    checks.extend(warnings.map(|it| Check::new("jobs", Err(JobError::failed(it)), Warning)));
    checks
}

/// Runs a program that changes nothing. Fails where it does, with the last line that it printed.
async fn output_of(cli: &Cli, program: &Path, arguments: &[&str]) -> Result<Arc<Output>> {
    let call = CliCall::new(program, arguments, TIMEOUT);
    let output = cli.query(&call).await?;
    if output.code == Some(0) {
        return Ok(output);
    }
    let printed = output.stdout.lines().chain(output.stderr.lines());
    let last = printed.map(str::trim).rfind(|line| !line.is_empty());
    let error = call.error(format!("failed: {}", last.unwrap_or("it printed nothing")));
    Err(error.with_hint("run it in a terminal"))
}

/// Runs a program, and describes it: its path, the version of its package, and the time that it took.
async fn described(
    cli: &Cli,
    program: &Path,
    package: &str,
    arguments: &[&str],
) -> Result<(Arc<Output>, String)> {
    let started = Instant::now();
    let output = output_of(cli, program, arguments).await;
    let seconds = started.elapsed().as_secs_f64();
    let version = installed_version(program, package).unwrap_or_else(|| "unknown".to_owned());
    let found = format!("{}, version {version}", program.display());
    match output {
        Ok(output) => Ok((output, format!("{found}, answered in {seconds:.1} s"))),
        Err(error) => Err(error.context(&found)),
    }
}

/// Reads the version of a package from the names in the virtual environment of its program.
fn installed_version(program: &Path, package: &str) -> Option<String> {
    let program = fs::canonicalize(program).ok()?;
    let pythons = fs::read_dir(program.parent()?.parent()?.join("lib")).ok()?;
    let sites = pythons.flatten().map(|it| it.path().join("site-packages"));
    let entries = sites.flat_map(fs::read_dir).flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.find_map(|name| {
        let version = name.strip_prefix(package)?.strip_prefix('-')?;
        Some(version.strip_suffix(".dist-info")?.to_owned())
    })
}

#[cfg(test)]
mod tests;
