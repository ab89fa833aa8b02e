//! The binary `tallylight`: the program with Tallylight's own kinds of jobs and no others.

use std::process::ExitCode;

use tallylight::Handlers;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tallylight::run(Handlers::new())
}
