//! The checks of `doctor`, side by side, so that they take no longer than the slowest.

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::setup::own_path;
use super::Check;
use super::Outcome::{Failure, Warning};
use crate::error::JobError;
use crate::parse::sky;
use crate::process::runner::{Cli, CliCall, Output};
use crate::process::table::ProcessTable;
use crate::process::{blocking, find};
use crate::service::requests::{ListRequest, StatusFilter};
use crate::service::{JobService, setting_problems};
use crate::settings::data_dir::DataDir;

/// The timeout of a program: the first run of `sky` starts SkyPilot's API server.
const TIMEOUT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// The free space below which a log or a checkpoint may not be written, in MiB.
const LITTLE_SPACE: u64 = 256;

/// Runs all checks, and returns them in the order of the report. `wired`: the service, or why no server would start.
pub(super) async fn run(
    wired: &Result<JobService, Box<dyn Error + Send + Sync>>,
    cli: &Cli,
) -> Vec<Check> {
    let problems = setting_problems();
    let jobs = async {
        match wired {
            Ok(service) => {
                let (mut checks, left) = tokio::join!(jobs(service, &problems), leftovers(service));
                checks.push(Check::new("leftovers", left, Warning));
                checks
            }
            Err(error) => {
                let error = JobError::failed(error);
                let error = error.with_hint("no server starts until that is corrected");
                vec![Check::new("settings", Err(error), Failure)]
            }
        }
    };
    let (oumi, sky, data, jobs) = tokio::join!(oumi(cli), skypilot(cli), data_folder(), jobs);
    let (version, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    let own = own_path().map(|path| format!("{}, version {version}, {os}", path.display()));
    let mut checks = vec![Check::new("server", own, Failure)];
    checks.extend(problems.iter().map(|problem| warning("settings", problem)));
    checks.extend(oumi.into_iter().chain(sky));
    checks.push(Check::new("data", data, Failure));
    checks.extend(jobs);
    checks
}

fn warning(name: &'static str, problem: impl ToString) -> Check {
    Check::new(name, Err(JobError::failed(problem)), Warning)
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
    let desktop = match other.as_deref() {
        Some(other) if other == program => {
            Ok("a client started from the desktop finds it too".to_owned())
        }
        other => {
            let other = other.map_or("none".into(), Path::to_string_lossy);
            let problem = format!(
                "a client started from the desktop finds {other}, but in a project's own .venv"
            );
            let hint = "`oumi-mcp-server setup` names this one in the client's settings";
            Err(JobError::failed(problem).with_hint(hint))
        }
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
    let mut checks = Vec::new();
    if let Ok((info, _)) = &info {
        checks.push(Check::new("sky api", api_server(&info.stdout), Warning));
    }
    checks.insert(0, Check::new("sky", info.map(|(_, found)| found), Warning));
    let enabled = enabled.and_then(|output| clouds(&output.stdout));
    checks.push(Check::new("clouds", enabled, Warning));
    let clusters = clusters.and_then(|output| clusters_up(&output.stdout));
    let clusters = clusters.map_err(|error| error.context("what is up, and billed, is not known"));
    checks.push(Check::new("clusters", clusters, Warning));
    checks
}

fn api_server(info: &str) -> Result<String, JobError> {
    let info = sky::api_info(info).unwrap_or_default();
    let server = &info["server"];
    let Some(status) = server["status"].as_str() else {
        return Ok("none runs; `sky` starts one when it is needed".to_owned());
    };
    let own = info["client"]["version"].as_str().unwrap_or_default();
    let [url, version] = ["url", "version"].map(|field| server[field].as_str().unwrap_or("?"));
    let found = format!("{url}, version {version}, is {status}");
    if status == "healthy" && version == own {
        return Ok(found);
    }
    let problem = JobError::failed(format!("{found}; `sky` has version {own}"));
    Err(problem.with_hint("while no launch is under way: `sky api stop; sky api start`"))
}

fn clouds(printed: &str) -> Result<String, JobError> {
    let clouds = sky::enabled_clouds(printed).map_err(JobError::failed)?;
    if clouds.is_empty() {
        let error = JobError::failed("SkyPilot may use none");
        return Err(error.with_hint("`sky check` says what each of them needs"));
    }
    Ok(format!("SkyPilot may use {}", clouds.join(", ")))
}

fn clusters_up(status: &str) -> Result<String, JobError> {
    let list = sky::clusters(status).map_err(JobError::failed)?;
    let up = list.clusters.iter().filter(|one| one.status != "STOPPED");
    let up = up.map(|cluster| {
        let stops = cluster.autostop_minutes;
        let stops = stops.map_or("never stops by itself".to_owned(), |minutes| {
            format!("stops after {minutes} idle min")
        });
        format!("{} ({}, {stops})", cluster.name, cluster.status)
    });
    let up: Vec<String> = up.collect();
    Ok(match up.len() {
        0 => "none is up".to_owned(),
        count => format!("{count} up, and billed: {}", up.join("; ")),
    })
}

async fn data_folder() -> Result<String, JobError> {
    let checking = blocking(|| {
        let data_dir = DataDir::from_environment()?;
        data_dir.check()?;
        let space = rustix::fs::statvfs(data_dir.jobs()).map_err(JobError::failed)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize) / MIB;
        let found = format!("{}, {free} MiB free", data_dir.registry().display());
        if free < LITTLE_SPACE {
            let hint = "make room: logs and checkpoints need it";
            return Err(JobError::failed(found).with_hint(hint));
        }
        Ok(found)
    });
    checking.await
}

/// Counts the jobs, and repeats the warnings of `list_jobs` but the `known` ones.
async fn jobs(service: &JobService, known: &[String]) -> Vec<Check> {
    let request = ListRequest {
        status: StatusFilter::All,
        limit: u32::MAX,
    };
    let Ok(answer) = tokio::time::timeout(TIMEOUT, service.list(request)).await else {
        let message = format!("they were not listed within {} s", TIMEOUT.as_secs());
        return vec![warning("jobs", message)];
    };
    if let Some(error) = answer.error {
        return vec![Check::new("jobs", Err(JobError::failed(error)), Failure)];
    }
    let live = answer.jobs.iter().filter(|job| !job.is_done);
    let live: Vec<&str> = live.map(|job| job.job_id.as_str()).collect();
    let over = answer.jobs.len() - live.len();
    let message = match live.len() {
        0 => format!("none runs; over: {over}"),
        count => format!("not over: {count} ({}); over: {over}", live.join(", ")),
    };
    let warnings = answer.warnings.iter().filter(|text| !known.contains(text));
    let warnings = warnings.map(|text| warning("jobs", text));
    let jobs = Check::new("jobs", Ok(message), Failure);
    std::iter::once(jobs).chain(warnings).collect()
}

/// Looks for what is left of jobs that have no record any more, and of servers that were killed.
async fn leftovers(service: &JobService) -> Result<String, JobError> {
    let records = service.registry().records().await?;
    let known: HashSet<String> = records.iter().map(|record| record.job_id.clone()).collect();
    let looking = blocking(move || {
        let data_dir = DataDir::from_environment()?;
        let mut living = ProcessTable::read()?.jobs(&data_dir.jobs());
        living.retain(|job_id| !known.contains(job_id));
        let names = data_dir
            .jobs()
            .read_dir()?
            .flatten()
            .map(|entry| entry.file_name());
        let folders = names.filter(|name| !name.to_str().is_some_and(|name| known.contains(name)));
        let (folders, files) = (folders.count(), data_dir.abandoned_files()?.len());
        Ok::<_, JobError>((living, folders, files))
    });
    let (living, folders, files) = looking.await?;
    if !living.is_empty() {
        let living = Vec::from_iter(living).join(", ");
        let error = format!("processes run of jobs without a record: {living}");
        return Err(JobError::failed(error).with_hint("`oumi-mcp-server cancel JOB` ends them"));
    }
    Ok(match (folders, files) {
        (0, 0) => "none".to_owned(),
        _ => format!(
            "folders of jobs without a record: {folders}; temporary files: {files}; the server removes them in time"
        ),
    })
}

/// Runs a program that changes nothing. Fails where it does, with the last line that it printed.
async fn output_of(cli: &Cli, program: &Path, arguments: &[&str]) -> Result<Arc<Output>, JobError> {
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
    package: &'static str,
    arguments: &[&str],
) -> Result<(Arc<Output>, String), JobError> {
    let started = Instant::now();
    let output = output_of(cli, program, arguments).await;
    let seconds = started.elapsed().as_secs_f64();
    let path = program.to_owned();
    let version = blocking(move || Ok::<_, JobError>(installed_version(&path, package))).await?;
    let version = version.unwrap_or_else(|| "unknown".to_owned());
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
    let sites = pythons
        .flatten()
        .map(|python| python.path().join("site-packages"));
    let installed = sites.filter_map(|site| fs::read_dir(site).ok()).flatten();
    installed.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let version = name.strip_prefix(package)?.strip_prefix('-')?;
        Some(version.strip_suffix(".dist-info")?.to_owned())
    })
}
