#Requires -Version 5.1
#Requires -RunAsAdministrator
<#
.SYNOPSIS
    Takes the services away. Configuration, secrets, logs and state stay, unless -Purge says otherwise.
.EXAMPLE
    .\winsvc\uninstall.ps1
.EXAMPLE
    .\winsvc\uninstall.ps1 -Purge
#>
[CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'High')]
param(
    [string]$Data = (Join-Path $env:ProgramData 'TDS'),
    # Also deletes the data folder and .venv, for good.
    [switch]$Purge
)
Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'
$Root = Split-Path -Parent $PSScriptRoot
$Venv = Join-Path $Root '.venv'

# A second node of this host, and other programs that were installed with `winsvc install`, run from this checkout, too.
$program = (Join-Path $PSScriptRoot 'host.py').ToLower()
$others = Get-CimInstance -ClassName Win32_Service | Where-Object { "$($_.PathName)".ToLower().Contains($program) } | ForEach-Object { $_.Name }
foreach ($name in @('TDSGrafana', 'TDSBridge') + @($others) | Select-Object -Unique) {
    if (-not (Get-Service -Name $name -ErrorAction SilentlyContinue)) { continue }
    & (Join-Path $Venv 'Scripts\python.exe') -m winsvc remove $name
    if ($LASTEXITCODE -ne 0) { throw "$name could not be removed" }
}
if ($Purge) {
    foreach ($folder in $Data, $Venv) {
        if ((Test-Path $folder) -and $PSCmdlet.ShouldProcess($folder, 'delete for good')) { Remove-Item -Recurse -Force -Path $folder }
    }
}
