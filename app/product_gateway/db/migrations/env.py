"""Alembic's entry: runs on the connection, and in the transaction, that `migrate` gives it."""

from alembic import context

from product_gateway.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # SQLite can, though Alembic does not think so
    render_as_batch=True,  # SQLite cannot change a column in place
)
with context.begin_transaction():
    context.run_migrations()
