//! The `mpreg` program: arguments in, exit code out.

use std::process::ExitCode;

/// Many small messages are allocated and freed by the same thread: mimalloc is built for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mpreg::cli::main()
}
