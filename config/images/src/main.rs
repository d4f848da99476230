//! `make images`: programs, bundle and catalog as OCI layouts.

mod build;

use clap::Parser;

fn main() -> anyhow::Result<()> {
    build::run(&build::Arguments::parse())
}
