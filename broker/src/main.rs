//! `mcp-gateway-broker`: reads the command line, then runs.

use mcp_gateway_broker::options::{self, Command};
use mcp_gateway_broker::{bridges, example, run, telemetry};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run::runtime() {
        Ok(runtime) => runtime.block_on(commanded()),
        Err(error) => exit(Err(error)),
    }
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "before logging exists, and for --help"
)]
async fn commanded() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1), &|name| std::env::var(name).ok()) {
        Ok(Command::Run(options)) => *options,
        Ok(Command::Print(text)) => {
            println!("{}", text.trim_end());
            return ExitCode::SUCCESS;
        }
        Ok(Command::Child(parent, program, arguments)) => {
            return exit(Err(bridges::orphan::become_server(&parent, &program, &arguments)));
        }
        Ok(Command::Example(address)) => return exit(example::run(address).await),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    telemetry::logs::start(options.log_level, options.log_json);
    let environment = run::Environment::real(&options);
    let code = match Box::pin(serve(options, environment)).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(component = "broker", error = format!("{error:#}"), "Not started");
            ExitCode::FAILURE
        }
    };
    telemetry::output::flush();
    code
}

#[expect(clippy::print_stderr, reason = "there is no log")]
fn exit(ended: std::io::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcp-gateway-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: options::Options, environment: run::Environment) -> anyhow::Result<ExitCode> {
    let terminal = run::Terminal::now();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let running = run::start(options, environment).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = terminal.closed(&mut hangup) => {}
    }
    tokio::select! {
        () = running.drain() => Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => Ok(ExitCode::from(130)),
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
    }
}
