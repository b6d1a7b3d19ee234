#Requires -Version 5.1
#Requires -RunAsAdministrator
<#
.SYNOPSIS
    Installs the bridge as a Windows service, with -GrafanaHome also Grafana beside it; run again, it upgrades them.
.DESCRIPTION
    Needs Python 3.11 to 3.13 (64 bit), installed for all users. Makes .venv, installs exactly what requirements\windows.lock names
    (by hash), makes the data folder, which only administrators and the services themselves can read, checks the configuration,
    registers the services, starts them and waits until they answer. What is set, command by command:
    python -m winsvc install bridge --print
.EXAMPLE
    .\winsvc\install.ps1 -Config C:\Temp\bridge.yaml -Secrets C:\Temp\secrets.env
.EXAMPLE
    .\winsvc\install.ps1 -GrafanaHome 'C:\Program Files\GrafanaLabs\grafana' -Remote 10.0.0.5
#>
[CmdletBinding()]
param(
    # Copied to bridge\bridge.yaml in the data folder; without it what is there is kept, and provisioning\bridge.yaml is the first one.
    [string]$Config,
    # Lines BRIDGE_...=..., copied to bridge\secrets.env in the data folder.
    [string]$Secrets,
    [string]$Data = (Join-Path $env:ProgramData 'TDS'),
    [string]$Python,
    # Who may connect through the firewall when the bridge listens beyond this machine: HAProxy's address.
    [string]$Remote = 'LocalSubnet',
    [string]$GrafanaHome
)
Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'
$Root = Split-Path -Parent $PSScriptRoot
$VenvPython = Join-Path $Root '.venv\Scripts\python.exe'
$BridgeFolder = Join-Path $Data 'bridge'
$BridgeConfig = Join-Path $BridgeFolder 'bridge.yaml'

function Invoke-Checked {
    param([string]$Program, [string[]]$Arguments)
    & $Program @Arguments
    if ($LASTEXITCODE -ne 0) { throw "$Program $Arguments ended with $LASTEXITCODE" }
}

# Options are quoted where it is called: a bare -- is PowerShell's own.
function Invoke-Winsvc {
    Invoke-Checked $VenvPython (@('-m', 'winsvc') + $args)
}

function Find-Python {
    $suitable = 'import struct, sys; print(sys.executable); sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) or struct.calcsize(chr(80)) < 8)'
    $candidates = @(@('py.exe', '-3.13'), @('py.exe', '-3.12'), @('py.exe', '-3.11'), @('python.exe'))
    if ($Python) { $candidates = @(, @($Python)) }
    foreach ($candidate in $candidates) {
        if (-not (Get-Command $candidate[0] -ErrorAction SilentlyContinue)) { continue }
        $options = @($candidate | Select-Object -Skip 1) + @('-c', $suitable)
        $found = & $candidate[0] @options
        if ($LASTEXITCODE -eq 0) { return $found }
    }
    throw 'Python 3.11 to 3.13 (64 bit) is needed, installed for all users; name it with -Python'
}

function Install-Program {
    if (-not (Test-Path $VenvPython)) {
        Invoke-Checked (Find-Python) @('-m', 'venv', (Join-Path $Root '.venv'))
    }
    $lock = Join-Path $Root 'requirements\windows.lock'
    Invoke-Checked $VenvPython @('-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--require-hashes', '-r', $lock)
    Set-Content -Encoding ascii -Path (Join-Path $Root '.venv\Lib\site-packages\bridge-checkout.pth') -Value $Root
}

function Install-Data {
    # Closed before a secret is written into it. S-1-5-18 is the system, S-1-5-32-544 the administrators.
    New-Item -ItemType Directory -Force -Path $BridgeFolder | Out-Null
    Invoke-Checked 'icacls.exe' @($Data, '/inheritance:r', '/grant:r', '*S-1-5-18:(OI)(CI)F', '*S-1-5-32-544:(OI)(CI)F')
    if ($Config) { Copy-Item -Path $Config -Destination $BridgeConfig }
    if (-not (Test-Path $BridgeConfig)) { Copy-Item -Path (Join-Path $Root 'provisioning\bridge.yaml') -Destination $BridgeConfig }
    if ($Secrets) { Copy-Item -Path $Secrets -Destination (Join-Path $BridgeFolder 'secrets.env') }
}

function Get-ServiceVerb {
    param([string]$Name)
    if (Get-Service -Name $Name -ErrorAction SilentlyContinue) {
        Invoke-Winsvc 'stop' $Name | Out-Host
        return 'update'
    }
    return 'install'
}

function Install-Bridge {
    $verb = Get-ServiceVerb 'TDSBridge'
    Invoke-Winsvc 'check' '--config' $BridgeConfig
    Invoke-Winsvc $verb 'bridge' '--data' $Data '--remote' $Remote
    Invoke-Winsvc 'start' 'TDSBridge' '--config' $BridgeConfig
}

# The value of a line NAME=value of a file.
function Get-Setting {
    param([string]$File, [string]$Name, [string]$Default)
    $line = Select-String -Path $File -Pattern "^$Name=(.+)$" | Select-Object -Last 1
    if ($line) { return $line.Matches[0].Groups[1].Value.Trim() }
    return $Default
}

function Install-Grafana {
    $verb = Get-ServiceVerb 'TDSGrafana'
    $folder = Join-Path $Data 'grafana'
    New-Item -ItemType Directory -Force -Path $folder | Out-Null
    $ini = Join-Path $folder 'grafana.ini'
    if (-not (Test-Path $ini)) { Copy-Item -Path (Join-Path $Root 'provisioning\grafana\grafana.ini') -Destination $ini }
    # Grafana's environment; the data sources' addresses and key belong there too (provisioning\grafana\grafana.ini lists them).
    $environment = Join-Path $folder 'secrets.env'
    $provisioning = Join-Path $Root 'provisioning\grafana'
    if (-not (Test-Path $environment)) { New-Item -ItemType File -Path $environment | Out-Null }
    if (-not (Select-String -Path $environment -Pattern '^GF_PATHS_PROVISIONING=' -Quiet)) {
        Add-Content -Path $environment -Encoding ascii -Value '', "GF_PATHS_PROVISIONING=$provisioning"
    }
    $address = Get-Setting $environment 'GF_SERVER_HTTP_ADDR' '127.0.0.1'
    if ($address -eq '0.0.0.0') { $address = '127.0.0.1' }
    $port = Get-Setting $environment 'GF_SERVER_HTTP_PORT' '3000'
    Invoke-Winsvc $verb 'grafana' '--data' $Data '--home' $GrafanaHome
    Invoke-Winsvc 'start' 'TDSGrafana' '--ready' "http://${address}:$port/api/health"
}

Install-Program
Install-Data
Install-Bridge
if ($GrafanaHome) { Install-Grafana }
Invoke-Winsvc 'status' 'TDSBridge'
