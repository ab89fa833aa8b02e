# The commands of this project. Each is one line that can be typed without `just`.

# List the recipes
default:
    @just --list

# Run everything on this machine, with the simulated platform
up *args:
    cargo run --release -- up --simulator {{ args }}

# Show one session from request to last video
demo *args:
    cargo run --release -- demo {{ args }}

# All tests; needs PostgreSQL's programs, starts its own clusters
test *args:
    cargo test --locked {{ args }}

# Tests of the rules alone: no database, seconds
test-fast *args:
    cargo test --locked -p domain {{ args }}

# Format the code
fmt:
    cargo fmt --all

# Lints, as errors
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The code's documentation, private items included, with every link checked
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

# Bans, licences and sources of dependencies
deny:
    cargo deny --all-features check bans licenses sources

# Renew .sqlx after a change of SQL; needs cargo-sqlx and DATABASE_URL of a migrated database
sqlx-prepare:
    SQLX_OFFLINE=false cargo sqlx prepare --workspace -- --workspace --all-targets

# The secrets that docker-compose.yml mounts
secrets:
    .docker/make-secrets

# All that CI checks
check:
    bash .ci/run
