"""A gateway to rehearse with: everything in one process, scripted by its clients, gone when it ends.

Where things are:

    commands   the command sandbox, and its options
    run        starts all of it, says where it is, and takes it away again
    layer      around the gateway: what clients wish of a sandbox
    examples   answers made of the spec's examples
    scripts    what each sync is to be like
    service    the product service, which behaves as the script says
    backstage  what is done in the database, behind the gateway's back
"""
