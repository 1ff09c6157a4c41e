# SPDX-License-Identifier: Apache-2.0
"""What every test of running programs needs: private daemons, clients, and the ledger."""
